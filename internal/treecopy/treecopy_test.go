//go:build linux

package treecopy_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/treecopy"
)

// mine are options with which an ordinary user can run the tests.
func mine() treecopy.Options {
	return treecopy.Options{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), NoSync: true}
}

// tree makes a directory from "path" (directory), "path=content" and "path->target" entries.
func tree(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, entry := range entries {
		name, content, isFile := strings.Cut(entry, "=")
		link, target, isLink := strings.Cut(entry, "->")
		switch {
		case isLink:
			name = link
		case !isFile:
			must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		if isLink {
			must(t, os.Symlink(target, filepath.Join(dir, name)))
		} else {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
	}
	return dir
}

// list returns the tree in the notation of tree, directories too.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		switch d.Type() {
		case fs.ModeDir:
			out = append(out, name)
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			must(t, err)
			out = append(out, name+"->"+target)
		default:
			data, err := os.ReadFile(p)
			must(t, err)
			out = append(out, name+"="+string(data))
		}
		return nil
	}))
	return out
}

// snapshot describes everything of a tree that a failed copy must not change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		must(t, err)
		info, err := os.Lstat(p)
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, p, info.Mode(), st.Uid, st.Gid, st.Ino, info.Size())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			must(t, err)
			fmt.Fprintf(&b, "%x\n", sha256.Sum256(data))
		}
		return nil
	}))
	return b.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCopyPlaces(t *testing.T) {
	src := tree(t, "f=new", "d/x=1", "d/sub/y=2", "d/link->x")
	for _, c := range []struct {
		name    string
		root    []string
		sources []string
		dst     string
		want    []string
	}{
		{"file to a new name", nil, []string{"f"}, "/a", []string{"a=new"}},
		{"file into a directory", []string{"a"}, []string{"f"}, "/a", []string{"a", "a/f=new"}},
		{"file into a directory to be", nil, []string{"f"}, "a/", []string{"a", "a/f=new"}},
		{"missing parents", nil, []string{"f"}, "/a/b/c", []string{"a", "a/b", "a/b/c=new"}},
		{"file over file", []string{"a=old"}, []string{"f"}, "/a", []string{"a=new"}},
		{"file over link", []string{"a->b", "b=old"}, []string{"f"}, "/a", []string{"a=new", "b=old"}},
		{"directory content", nil, []string{"d"}, "/a", []string{"a", "a/link->x", "a/sub", "a/sub/y=2", "a/x=1"}},
		{"merge", []string{"a/sub/z=0", "a/x=old"}, []string{"d"}, "/a",
			[]string{"a", "a/link->x", "a/sub", "a/sub/y=2", "a/sub/z=0", "a/x=1"}},
		{"merge through a link inside", []string{"usr/s", "a/sub->/usr/s"}, []string{"d"}, "/a",
			[]string{"a", "a/link->x", "a/sub->/usr/s", "a/x=1", "usr", "usr/s", "usr/s/y=2"}},
		{"several", nil, []string{"f", "d"}, "/a", []string{"a", "a/f=new", "a/link->x", "a/sub", "a/sub/y=2", "a/x=1"}},
		{"whole root", []string{"etc"}, []string{"d"}, "/", []string{"etc", "link->x", "sub", "sub/y=2", "x=1"}},
		{"dots stay inside", nil, []string{"f"}, "/../../a", []string{"a=new"}},
		{"absolute link stays inside", []string{"run", "var/run->/run"}, []string{"f"}, "/var/run/a",
			[]string{"run", "run/a=new", "var", "var/run->/run"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := tree(t, c.root...)
			var sources []string
			for _, s := range c.sources {
				sources = append(sources, filepath.Join(src, s))
			}
			must(t, treecopy.Copy(t.Context(), root, sources, c.dst, mine()))
			if got := list(t, root); !slices.Equal(got, c.want) {
				t.Errorf("got %v\nwant %v", got, c.want)
			}
		})
	}
}

// Links of the container that lead out of it, by any road, end inside it.
func TestCopyNeverEscapes(t *testing.T) {
	canary := tree(t, "keep=1", "dir")
	before := snapshot(t, canary)
	src := tree(t, "f=evil", "d/link/f=evil", "d/file=evil")
	up := strings.Repeat("../", 30)
	for _, target := range []string{canary, filepath.Join(canary, "dir"), up + canary, up + canary + "/keep"} {
		for _, dst := range []string{"/link", "/link/f", "/link/sub/f", "/", "/link/.."} {
			root := tree(t, "link->"+target, "file->"+filepath.Join(canary, "keep"))
			for _, source := range []string{"f", "d"} {
				err := treecopy.Copy(t.Context(), root, []string{filepath.Join(src, source)}, dst, mine())
				if err != nil && errors.Is(err, kimg.ErrInternal) {
					t.Errorf("%s to %s over a link to %s: %v", source, dst, target, err)
				}
			}
		}
	}
	if after := snapshot(t, canary); after != before {
		t.Errorf("outside the container was\n%s\nis\n%s", before, after)
	}
}

// A failure at the end takes everything back: new names, replaced files, created directories, the staging directory.
func TestCopyFailureLeavesNothing(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	src := tree(t, "good/a=new", "good/b/c=new", "good/old=new", "bad/z=file", "wrong/y/x=dir")
	for _, c := range []struct {
		name    string
		ctx     context.Context
		sources []string
		dst     string
		class   kimg.Class
	}{
		{"file over directory", t.Context(), []string{"good", "bad"}, "/t", kimg.ErrExists},
		{"directory over file", t.Context(), []string{"good", "wrong"}, "/t", kimg.ErrExists},
		{"under a file", t.Context(), []string{"good/a"}, "/t/y/new/name", kimg.ErrExists},
		{"through a dangling link", t.Context(), []string{"good"}, "/new/../t/dangling/x", kimg.ErrExists},
		{"missing source", t.Context(), []string{"good", "nothing"}, "/t", kimg.ErrNotFound},
		{"FIFO", t.Context(), []string{"good", fifo}, "/t", kimg.ErrUnsafe},
		{"cancelled", cancelled, []string{"good"}, "/t", kimg.ErrInterrupted},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := tree(t, "t/old=old", "t/z/q=1", "t/y=file", "t/dangling->gone")
			before := snapshot(t, root)
			var sources []string
			for _, s := range c.sources {
				if !filepath.IsAbs(s) {
					s = filepath.Join(src, s)
				}
				sources = append(sources, s)
			}
			err := treecopy.Copy(c.ctx, root, sources, c.dst, mine())
			if kimg.ClassOf(err) != c.class {
				t.Errorf("%v is class %s, want %s", err, kimg.ClassOf(err), c.class)
			}
			if after := snapshot(t, root); after != before {
				t.Errorf("was\n%s\nis\n%s", before, after)
			}
		})
	}
}

func TestCopyKeepsWhatFilesCarry(t *testing.T) {
	src := tree(t, "d/one=1", "d/sub", "d/exec=x", "d/link->one")
	must(t, os.Link(filepath.Join(src, "d/one"), filepath.Join(src, "d/sub/two")))
	must(t, os.Chmod(filepath.Join(src, "d/exec"), 0o755|os.ModeSetuid))
	must(t, os.Chmod(filepath.Join(src, "d/sub"), 0o700))
	must(t, unix.Mkfifo(filepath.Join(src, "d/fifo"), 0o640))
	must(t, unix.Setxattr(filepath.Join(src, "d/one"), "user.k", []byte("v"), 0))
	when := time.Unix(1234567890, 123456789)
	for _, name := range []string{"d/one", "d/sub"} {
		must(t, os.Chtimes(filepath.Join(src, name), when, when))
	}
	root := t.TempDir()
	must(t, treecopy.Copy(t.Context(), root, []string{filepath.Join(src, "d")}, "/t", mine()))

	one, two := stat(t, filepath.Join(root, "t/one")), stat(t, filepath.Join(root, "t/sub/two"))
	if !os.SameFile(one, two) {
		t.Error("the hard link became a second file")
	}
	if !one.ModTime().Equal(when) || !stat(t, filepath.Join(root, "t/sub")).ModTime().Equal(when) {
		t.Error("times are lost")
	}
	for name, mode := range map[string]os.FileMode{
		"t": 0o755 | os.ModeDir, "t/exec": 0o755 | os.ModeSetuid, "t/sub": 0o700 | os.ModeDir, "t/fifo": 0o640 | os.ModeNamedPipe,
	} {
		if got := stat(t, filepath.Join(root, name)).Mode(); got != mode {
			t.Errorf("%s has mode %v, want %v", name, got, mode)
		}
	}
	value := make([]byte, 8)
	n, err := unix.Getxattr(filepath.Join(root, "t/one"), "user.k", value)
	if err != nil || string(value[:n]) != "v" {
		t.Errorf("attribute: %q, %v", value[:max(n, 0)], err)
	}
}

func TestCopyMode(t *testing.T) {
	src := tree(t, "d/f=1")
	root := t.TempDir()
	o := mine()
	mode := os.FileMode(0o711) | os.ModeSticky
	o.Mode = &mode
	must(t, treecopy.Copy(t.Context(), root, []string{filepath.Join(src, "d/f")}, "/f", o))
	if got := stat(t, filepath.Join(root, "f")).Mode(); got != mode {
		t.Errorf("mode %v, want %v", got, mode)
	}
}

// In a container with id maps, capabilities of root become those of the container's root.
func TestCopyCapability(t *testing.T) {
	src := tree(t, "f=1")
	v2 := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(filepath.Join(src, "f"), "security.capability", v2, 0))
	root := t.TempDir()
	o := treecopy.Options{UID: 10000, GID: 10000, Root: 10000}
	must(t, treecopy.Copy(t.Context(), root, []string{filepath.Join(src, "f")}, "/f", o))
	got := make([]byte, 64)
	n, err := unix.Getxattr(filepath.Join(root, "f"), "security.capability", got)
	must(t, err)
	want := append([]byte{1, 0, 0, 3}, v2[4:]...)
	want = append(want, 0x10, 0x27, 0, 0)
	if !slices.Equal(got[:n], want) {
		t.Errorf("got %x\nwant %x", got[:n], want)
	}
	if st := stat(t, filepath.Join(root, "f")).Sys().(*syscall.Stat_t); st.Uid != 10000 || st.Gid != 10000 {
		t.Errorf("owner %d:%d", st.Uid, st.Gid)
	}
}

func TestClear(t *testing.T) {
	root := tree(t, ".kimg-add-DEAD/0/x=1", "keep=1", ".kimg-add-LIVE/0=1")
	live, err := os.Open(filepath.Join(root, ".kimg-add-LIVE"))
	must(t, err)
	defer live.Close()
	must(t, unix.Flock(int(live.Fd()), unix.LOCK_EX))
	if !treecopy.Stale(root) {
		t.Error("remains are not seen")
	}
	must(t, treecopy.Clear(root))
	if got, want := list(t, root), []string{".kimg-add-LIVE", ".kimg-add-LIVE/0=1", "keep=1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReadFile(t *testing.T) {
	outside := tree(t, "secret=1")
	root := tree(t, "etc/passwd=root", "abs->/etc/passwd", "out->"+outside+"/secret", "dir")
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	for name, class := range map[string]kimg.Class{
		"/etc/passwd": "", "/abs": "", "/out": kimg.ErrNotFound, "/dir": kimg.ErrUnsafe, "/fifo": kimg.ErrUnsafe, "/none": kimg.ErrNotFound,
	} {
		data, err := treecopy.ReadFile(root, name, 4)
		if kimg.ClassOf(err) != class || class == "" && string(data) != "root" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if _, err := treecopy.ReadFile(root, "/etc/passwd", 3); kimg.ClassOf(err) != kimg.ErrLimit {
		t.Errorf("too big: %v", err)
	}
}

func stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	info, err := os.Lstat(name)
	must(t, err)
	return info
}
