package lab

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// Then is the modification time of everything the helper changes, so that trees compare and digests repeat.
var Then = time.Unix(1700000000, 0)

// change is a helper: it does some of the changes below to a mounted container. An argument seed=WORD decides the content
// of the files that follow.
func change(dir string, args []string) error {
	c := &changer{root: dir, r: rand.New(rand.NewPCG(1, 2))}
	for _, what := range args {
		if seed, ok := strings.CutPrefix(what, "seed="); ok {
			c.r = rand.New(rand.NewPCG(1, number(seed)))
			continue
		}
		f := changes[what]
		if f == nil {
			return fmt.Errorf("no such change: %s", what)
		}
		f(c)
	}
	if c.err != nil {
		return c.err
	}
	return c.settle()
}

// number turns a word into a seed.
func number(word string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(word)) // a hash never fails
	return h.Sum64()
}

// changes are named so that a test can do several under one mount or each under its own.
var changes = map[string]func(c *changer){
	"workload": workload,
	"mapped":   mapped,
	"host-id": func(c *changer) { // an owner that no map of the container knows
		c.file("srv/foreign", "x", 0o644)
		c.own("srv/foreign", 3000000000, 3000000000)
	},
	"gigabyte": func(c *changer) {
		for i := range 8 {
			c.random(fmt.Sprintf("srv/big%d", i), 128<<20)
		}
	},
	"eighth": func(c *changer) { c.random("srv/big", 64<<20) },
	"some": func(c *changer) {
		for i := range 200 {
			c.file(fmt.Sprintf("srv/some/%d/%d", i%10, i), c.text(1+c.r.IntN(8<<10)), 0o644)
		}
		c.random("srv/some/big", 16<<20)
		c.remove("etc/b")
	},
	"frames": func(c *changer) { c.file("srv/frames", c.text(9<<20), 0o644) }, // three of zstd's, and ten blocks of gzip's
	"moved": func(c *changer) { // what redirect_dir and metacopy are about
		c.do("var/lib", func(p string) error { return move(filepath.Join(p, "moving"), filepath.Join(p, "moved")) })
		c.chmod("usr/bin/tool", 0o4711)
	},
	"thousand": func(c *changer) {
		c.dir("srv/thousand", 0o755)
		for i := range 1000 {
			c.random(fmt.Sprintf("srv/thousand/%03d", i), 16<<10)
		}
	},
	"thousandth": func(c *changer) { c.random("srv/thousand/500", 16<<10) },
	"small":      small,
	"packages":   packages,
	"system":     system,
	"crowd":      crowd,
	"tiny": func(c *changer) {
		for i := range 10 {
			c.file(fmt.Sprintf("srv/tiny/%d", i), c.text(1024), 0o644)
		}
	},
	"one": func(c *changer) {
		c.dir("srv/data", 0o755)
		for i := range 50 {
			c.file(fmt.Sprintf("srv/data/f%02d", i), c.text(1000+i), 0o644)
		}
		c.remove("etc/a")
		c.remove("etc/b")
	},
	"two": func(c *changer) {
		c.remove("etc/c")
		c.remove("opt/tree")
		c.dir("opt/tree", 0o755)
		c.file("opt/tree/new", "replaced", 0o600)
		c.link("srv/data/f00", "srv/data/same")
		c.symlink("../data", "srv/data/loop")
		c.acl("srv/data/f01", "system.posix_acl_access", 1000)
		c.capability("srv/data/f02")
		c.own("srv/data/f03", 1234, 5678)
	},
}

// move renames a directory as mv does, which copies where the kernel refuses.
func move(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, unix.EXDEV) {
		return err
	}
	return errors.Join(exec.Command("cp", "-a", from, to).Run(), os.RemoveAll(from))
}

// workload is the container of a busy day on a Debian root file system.
func workload(c *changer) {
	small(c)
	everything(c)
	for _, f := range []string{"etc/issue", "etc/debian_version", "usr/share/doc/bash", "var/lib/dpkg/info/bash.list"} {
		c.remove(f)
	}
	c.remove("usr/share/doc/tar") // replaced: overlay marks the new one opaque
	c.dir("usr/share/doc/tar", 0o750)
	c.file("usr/share/doc/tar/only", "this", 0o644)
	c.remove("usr/share/doc/gzip") // a directory becomes a file
	c.file("usr/share/doc/gzip", "now a file", 0o644)
	c.remove("etc/issue.net") // a file becomes a directory
	c.dir("etc/issue.net/d", 0o700)
	c.remove("etc/shells") // removed and made again
	c.file("etc/shells", "/bin/sh\n", 0o640)
	c.link("usr/bin/tail", "usr/bin/tail2") // a link to a lower file
	c.chmod("usr/bin/head", 0o4711)
	c.own("etc/passwd", 7, 8)
	c.rename("usr/bin/wc", "usr/bin/count")
	if testenv.IsRoot() {
		c.do("srv/null", func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))) })
		c.do("srv/disk", func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))) })
	}
}

// small is 20,000 files of 1 to 8 KiB.
func small(c *changer) {
	for i := range 20000 {
		c.file(fmt.Sprintf("srv/small/%03d/%05d", i/200, i), c.text(1024+c.r.IntN(7*1024)), 0o644)
	}
}

// everything makes one of each kind of file.
func everything(c *changer) {
	c.dir("srv/kinds", 0o2755)
	c.file("srv/kinds/setuid", "x", 0o4755)
	c.file("srv/kinds/unreadable", "x", 0)
	c.file("srv/kinds/empty", "", 0o644)
	c.file("srv/kinds/"+strings.Repeat("long-", 40), "x", 0o644)
	c.file("srv/kinds/not\xffutf8\nline", "x", 0o644)
	c.dir("srv/kinds/"+strings.Repeat("d", 120), 0o2755) // which fuse-overlayfs would not inherit
	c.dir("srv/kinds/"+strings.Repeat("d", 120)+"/"+strings.Repeat("e", 120), 0o755)
	c.file("srv/kinds/"+strings.Repeat("d", 120)+"/"+strings.Repeat("e", 120)+"/f", "x", 0o644)
	c.symlink("/no/such/target", "srv/kinds/dangling")
	c.symlink(strings.Repeat("t", 300), "srv/kinds/long-target")
	c.do("srv/kinds/fifo", func(p string) error { return unix.Mkfifo(p, 0o620) })
	c.file("srv/kinds/linked", c.text(5000), 0o644)
	c.dir("srv/kinds/z", 0o1777)
	c.link("srv/kinds/linked", "srv/kinds/a-link")
	c.link("srv/kinds/linked", "srv/kinds/z/another")
	c.do("srv/kinds/sparse", func(p string) error {
		if err := os.WriteFile(p, []byte("head"), 0o644); err != nil {
			return err
		}
		return os.Truncate(p, 16<<20)
	})
	c.file("srv/kinds/owned", "x", 0o664)
	c.own("srv/kinds/owned", 1234, 5678)
	c.symlink("owned", "srv/kinds/owned-link")
	c.own("srv/kinds/owned-link", 4321, 8765)
	c.file("srv/kinds/cap", "x", 0o755)
	c.capability("srv/kinds/cap")
	c.file("srv/kinds/acl", "x", 0o640)
	c.acl("srv/kinds/acl", "system.posix_acl_access", 1000)
	c.dir("srv/kinds/acl-dir", 0o750)
	c.acl("srv/kinds/acl-dir", "system.posix_acl_default", 1001)
	c.file("srv/kinds/attr", "x", 0o644)
	c.xattr("srv/kinds/attr", "user.note", "hello\x00world")
	c.do("srv/kinds/socket", func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) })
}

// mapped is what a container with an id map gets: owners in its map, ids inside attributes, deletions.
func mapped(c *changer) {
	everything(c)
	c.remove("etc/issue")
	c.remove("usr/share/doc/bash")
	c.do("srv/added", func(string) error { return nil }) // made by kimg add: only its time
}
