package scripts

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// Every command, with what it works on left open: {C} a container, {I} an image. The files are those of fixture.
var (
	onContainer = []string{
		"add {C} file /srv/x", "commit {C} new:1", "commit {C} oci:dest/layout:1", "commit --rm {C} new:1", "commit --manifest list:1 {C}",
		"commit {C} new:1 oci:dest/both:1", "commit {C} new:1 dir:dest/image oci-archive:dest/o.tar docker-archive:dest/d.tar:x:1", "commit --iidfile dest/id --metadata-file dest/meta {C} new:1", "config --env A=1 {C}",
		"history {C}", "diff {C}", "diff --json {C}", "export {C}", "export -o dest/x.tar {C}", "commit --squash {C} new:1", "diff --tar -o dest/x.tar {C}", "diff {C} {C}", "inspect {C}", "inspect --type container {C}", "mount {C}",
		"mount {C} -- touch ran", "rm {C}", "umount {C}", "unshare --mount ROOT={C} touch ran",
	}
	onImage = []string{
		"from {I}", "from --name new --cidfile dest/cid {I}", "from --name new --uidmap 0:1:10 {I}", "tag {I} new:1", "untag {I}",
		"rmi {I}", "rmi --force {I}", "images {I}", "images --filter before={I}", "inspect --type image {I}", "inspect --raw --type image {I}",
		"lease add {I}", "mount --image {I}", "umount --image {I}", "ps --filter ancestor={I}",
		"config --image {I} --env A=1 new:1", "history {I}", "export {I}", "tree {I}", "tree --whatrequires {I}",
		"convert {I} dir:dest/image", "convert --format v2s1 {I} dir:dest/image", "convert --proof {I} oci:dest/image:1", "convert {I} oci-archive:dest/x.tar",
		"save -o dest/x.tar {I}", "save --format docker-archive -o dest/x.tar {I} {I}", "save {I}",
		"convert {I} docker-archive:dest/x.tar:x:1", "convert --format v2s2 {I} new:1", "validate {I}", "validate --fast {I}",
		"push {I} oci:dest/image:1", "copy {I} dir:dest/image", "pull --policy missing {I}", "manifest create list:1 {I}",
	}
	onStore = []string{
		"images", "ps", "ps --all", "mount", "umount --all", "rm --all", "rmi --all", "info", "check", "lease ls", "lease rm --all", "gc", "gc --dry-run --filter until=0s", "from scratch", "manifest create list:1",
		"import tree new:1", "import tree.tar new:1", "import - new:1", "load -i tree.tar",
	}
)

// withoutStore are the commands that have nothing to refuse but a wrong command line.
var withoutStore = []string{"version", "help", "completion", "list-tags", "delete"}

// fixture makes a lab with two images, two containers (c1 has changes) and files to work with.
func fixture(t testing.TB) *lab {
	t.Helper()
	l := newLab(t)
	fill(t, l)
	return l
}

func fill(t testing.TB, l *lab) {
	t.Helper()
	for name, text := range map[string]string{"file": "content\n", "tree/etc/passwd": "root:x:0:0::/:/bin/sh\n", "tree/srv/one": "1\n", "other/two": "2\n", "dest/keep": "keep\n"} {
		path := filepath.Join(l.work, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), 0o644))
	}
	if out, err := exec.Command("tar", "-C", filepath.Join(l.work, "tree"), "-cf", filepath.Join(l.work, "tree.tar"), ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	l.must(t, "import", "tree", "base:1")
	l.must(t, "import", "other", "other:1")
	l.must(t, "tag", "base:1", "base:second")
	l.must(t, "from", "--name", "c1", "base:1")
	l.must(t, "add", "c1", "file", "/srv/added")
	l.must(t, "from", "--name", "c2", "base:1")
	l.must(t, "mount", "c2", "--", "true") // the first mount of a container makes directories that stay
}

// expect runs one command line that must be refused and must change nothing.
func (l *lab) expect(t *testing.T, line string, code int, class string) {
	t.Helper()
	l.expectCommand(t, exec.Command(binary, strings.Fields(line)...), line, code, class)
}

func (l *lab) expectCommand(t *testing.T, cmd *exec.Cmd, line string, code int, class string) {
	t.Helper()
	before := l.snapshot()
	r := l.command(cmd)
	if err := refused(r, code, class); err != nil {
		t.Errorf("kimg %s: %v", line, err)
	}
	if d := before.differs(l.snapshot()); d != "" {
		t.Errorf("kimg %s changed:\n%s", line, d)
	}
}

func lines(templates []string, c, i string) []string {
	var out []string
	for _, line := range templates {
		out = append(out, strings.NewReplacer("{C}", c, "{I}", i).Replace(line))
	}
	return out
}

// except takes out the lines that begin with one of the words.
func except(all []string, words ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return line == w || strings.HasPrefix(line, w+" ") })
	})
}

// TestEveryCommandIsInTheTable keeps the lists above complete.
func TestEveryCommandIsInTheTable(t *testing.T) {
	l := newLab(t)
	inTable := map[string]bool{}
	for _, line := range slices.Concat(onContainer, onImage, onStore, withoutStore) {
		inTable[strings.Fields(line)[0]] = true
	}
	for _, alias := range []string{"ps", "containers"} {
		inTable[alias] = inTable["ps"]
	}
	_, list, _ := strings.Cut(l.must(t, "help"), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	n := 0
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; !inTable[name] {
			t.Errorf("kimg %s is in no list", name)
		}
		n++
	}
	if n < 20 {
		t.Errorf("only %d commands found", n)
	}
}

func TestRefusesUnknown(t *testing.T) {
	l := fixture(t)
	for _, line := range lines(onContainer, "nosuch", "") {
		l.expect(t, line, 1, "notfound")
	}
	for _, line := range lines(onImage, "", "nosuch") {
		l.expect(t, line, 1, "notfound")
	}
	l.expect(t, "rm c1 nosuch", 1, "notfound")
	l.expect(t, "rmi other:1 nosuch", 1, "notfound")
	l.expect(t, "mount c1 nosuch", 1, "notfound")
	l.expect(t, "umount c1 nosuch", 1, "notfound")
	l.expect(t, "add c1 file nosuch /srv/", 1, "notfound")
	for _, line := range []string{"diff c1 nosuch", "diff nosuch base:1", "diff sha256:" + strings.Repeat("0", 64), "diff " + strings.Repeat("0", 64)} {
		l.expect(t, line, 1, "notfound")
	}
	l.expect(t, "import nosuch new:1", 1, "notfound")
}

func TestRefusesWrongUsage(t *testing.T) {
	l := fixture(t)
	for _, line := range slices.Concat(lines(onContainer, "c1", ""), lines(onImage, "", "base:1"), onStore) {
		if command, rest, ok := strings.Cut(line, " "); ok && command == "unshare" {
			l.expect(t, command+" --nosuch "+rest, 2, "invalid")
			continue
		}
		if strings.Contains(line, " -- ") {
			line = "--nosuch " + line
		}
		l.expect(t, line+" --nosuch", 2, "invalid")
		l.expect(t, "--log-level loud "+line, 2, "invalid")
	}
	for _, command := range []string{"add", "commit", "config", "convert", "diff", "export", "from", "history", "import", "inspect", "rm", "rmi", "save", "tag", "tree", "umount", "untag", "validate"} {
		l.expect(t, command, 2, "invalid")
	}
}

func TestRefusesTaken(t *testing.T) {
	l := fixture(t)
	l.expect(t, "from --name c1 base:1", 1, "exists")
	l.expect(t, "from --name c1 scratch", 1, "exists")
	l.expect(t, "from --cidfile dest/keep base:1", 1, "exists")
	l.expect(t, "commit c1 oci:dest", 1, "exists")
	l.expect(t, "commit c1 oci:file", 1, "exists")
	l.expect(t, "rmi --force base:1", 1, "busy")
	l.expect(t, "add c1 file /srv/one/", 1, "exists")
}

func TestRefusesBadNames(t *testing.T) {
	l := fixture(t)
	for _, name := range []string{"../x", "a/b", ".", "-x", "ä", "a\nb", "\x1b[31m"} {
		cmd := exec.Command(binary, "from", "--name="+name, "base:1")
		l.expectCommand(t, cmd, "from --name "+name, 1, "invalid")
	}
	for _, name := range []string{"UPPER", "a b", "x@sha256:12", "../x", "a//b", "a\x1b[31mb", "a\nb", ":1"} {
		for _, args := range [][]string{{"tag", "base:1", name}, {"commit", "c1", name}, {"import", "tree", name}, {"commit", "c1", name, "oci:dest/l"}} {
			l.expectCommand(t, exec.Command(binary, args...), strings.Join(args, " "), 1, "invalid")
		}
	}
	long := strings.Repeat("x", 300)
	for _, line := range []string{"from --name " + long + " base:1", "tag base:1 " + long, "commit c1 " + long, "import tree " + long} {
		l.expect(t, line, 1, "limit")
	}
	for _, ref := range []string{"", "a b", "\x1b[31m", strings.Repeat("x", 5000), "../../etc", "a\n"} {
		cmd := exec.Command(binary, "inspect", ref)
		before := l.snapshot()
		r := l.command(cmd)
		if refused(r, 1, "notfound") != nil && refused(r, 1, "invalid") != nil && refused(r, 1, "limit") != nil {
			t.Errorf("inspect %q: exit %d, %q", ref, r.code, r.err)
		}
		if d := before.differs(l.snapshot()); d != "" {
			t.Error(d)
		}
	}
}

// A container of another tool is never taken for one of kimg's.
func TestRefusesForeignContainers(t *testing.T) {
	l := fixture(t)
	l.buildah(t, "--root", l.root(), "--runroot", l.runRoot(), "--storage-driver", "overlay", "from", "--name", "foreign", "scratch")
	l.expect(t, "rm foreign", 1, "busy")
	for _, line := range []string{
		"diff foreign", "inspect foreign", "commit foreign new:1", "config --env A=1 foreign", "mount foreign -- true", "add foreign file /there", "ps --all", "rm --force foreign",
	} {
		l.must(t, strings.Fields(line)...)
	}
}

// A damaged state file is an error for its own container and for no other, and never a reason to write.
func TestRefusesDamagedState(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	check(t, os.WriteFile(outside, []byte("{}"), 0o600))
	for name, damage := range map[string]func(t *testing.T, path, other string){
		"null":      write("null"),
		"object":    write("{}"),
		"empty":     write(""),
		"text":      write("no JSON"),
		"truncated": func(t *testing.T, path, _ string) { check(t, os.Truncate(path, 200)) },
		"link":      func(t *testing.T, path, _ string) { check(t, os.Symlink(outside, removed(t, path))) },
		"FIFO":      func(t *testing.T, path, _ string) { check(t, unix.Mkfifo(removed(t, path), 0o600)) },
		"directory": func(t *testing.T, path, _ string) { check(t, os.Mkdir(removed(t, path), 0o700)) },
		"other's": func(t *testing.T, path, other string) {
			data, err := os.ReadFile(other)
			check(t, err)
			check(t, os.WriteFile(path, data, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := fixture(t)
			damage(t, l.stateFile(t, "c1"), l.stateFile(t, "c2"))
			for _, line := range lines([]string{
				"commit {C} new:1", "commit {C} oci:dest/layout:1", "commit --rm {C} new:1", "commit {C} new:1 oci:dest/both:1", "commit {C} new:1 dir:dest/image oci-archive:dest/o.tar docker-archive:dest/d.tar:x:1",
				"commit --iidfile dest/id --metadata-file dest/meta {C} new:1", "config --env A=1 {C}", "inspect {C}", "add {C} file relative",
			}, "c1", "") {
				before := l.snapshot()
				r := l.kimg(strings.Fields(line)...)
				if refused(r, 1, "state") != nil && (refused(r, 1, "unsafe") != nil || name != "link" && name != "FIFO" && name != "directory") {
					t.Errorf("kimg %s: exit %d: %s", line, r.code, r.err)
				}
				if d := before.differs(l.snapshot()); d != "" {
					t.Errorf("kimg %s changed:\n%s", line, d)
				}
			}
			if r := l.kimg("check"); r.code != 1 || !strings.Contains(r.out, " c1:") || strings.Contains(r.out, " c2:") {
				t.Errorf("check: exit %d\n%s", r.code, r.out)
			}
			for _, line := range []string{"ps", "inspect c2", "config --env A=1 c2", "commit c2 fine:1", "diff c1", "mount c1 -- true"} {
				l.must(t, strings.Fields(line)...)
			}
			for _, line := range []string{"config --clear state --env A=1 c1", "check", "inspect c1", "commit c1 fine:2", "rm c1"} {
				l.must(t, strings.Fields(line)...)
			}
		})
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "{}" {
		t.Errorf("the file outside: %q, %v", data, err)
	}
}

func write(text string) func(*testing.T, string, string) {
	return func(t *testing.T, path, _ string) { check(t, os.WriteFile(path, []byte(text), 0o600)) }
}

func removed(t *testing.T, path string) string {
	check(t, os.Remove(path))
	return path
}

func (l *lab) stateFile(t testing.TB, container string) string {
	id := l.must(t, "inspect", "--format", "{{.ID}}", container)
	return filepath.Join(l.root(), "overlay-containers", id, "userdata", "kimg.json")
}

// Drivers and options this program does not have are refused before anything is made of them.
func TestRefusesDrivers(t *testing.T) {
	l := fixture(t)
	all := slices.Concat(lines(onContainer, "c1", ""), lines(onImage, "", "base:1"), onStore)
	for _, flags := range []string{
		"--storage-driver btrfs", "--storage-driver zfs", "--storage-driver nonsense", "--storage-driver vfs", "--storage-opt overlay.size=1G",
	} {
		for _, line := range all {
			l.expect(t, flags+" "+line, 1, "unsupported")
		}
	}
	// A fresh place too: nothing is made there.
	for _, driver := range []string{"btrfs", "zfs", "nonsense"} {
		l.expect(t, fmt.Sprintf("--root %s/fresh --storage-driver %s from scratch", l.work, driver), 1, "unsupported")
	}
}

// What keeps the directories of a store from being what its trees show is refused by name; the rest works there.
func TestRefusesOptions(t *testing.T) {
	l := fixture(t)
	for _, line := range lines([]string{
		"commit {C} new:1", "commit --rm {C} new:1", "commit {C} oci:dest/layout:1", "diff {C}", "diff {C} base:1", "diff base:1 {C}", "diff --tar -o dest/x.tar {C}",
		"import tree new:1", "import tree.tar new:1",
	}, "c1", "") {
		l.expect(t, "--storage-opt overlay.force_mask=shared "+line, 1, "unsupported")
		if r := l.kimg(strings.Fields("--storage-opt overlay.force_mask=shared " + line)...); !strings.Contains(r.err, "force_mask") {
			t.Errorf("%s: %s", line, r.err)
		}
	}
	for _, line := range []string{"images", "inspect c1", "history c1"} {
		l.must(t, strings.Fields("--storage-opt overlay.force_mask=shared "+line)...)
	}
	// A program that does not mount: what needs no mount works.
	flags := "--storage-opt overlay.mount_program=/bin/false "
	l.must(t, strings.Fields(flags+"ps")...) // the driver remembers that there is one
	for _, line := range []string{"diff c1", "diff base:1 other:1", "commit c1 new:1", "commit --rm c1 oci:dest/layout:1"} {
		l.expect(t, flags+line, 1, "unsupported")
	}
	for _, line := range []string{"images", "inspect c1", "import tree new:1"} {
		l.must(t, strings.Fields(flags+line)...)
	}
}

func TestRefusesIDs(t *testing.T) {
	l := fixture(t)
	l.expect(t, "from --subuidname no-such-user-here base:1", 1, "denied")
	l.expect(t, "from --uidmap 0:x:1 base:1", 2, "invalid")
	l.must(t, "from", "--name", "m", "--uidmap", "0:1:100", "base:1")
	l.must(t, "mount", "m", "--", "true") // the first mount of a container makes directories that stay
	l.expect(t, "add --chown 100 m file /x", 1, "invalid")
	l.expect(t, "add --chown 1:100 m file /x", 1, "invalid")
	l.expect(t, "add --chown no-such-user m file /x", 1, "notfound")
	// The store's own user, whom the container's map does not have, leaves a file.
	l.must(t, "unshare", "--mount", "ROOT=m", "touch", "made")
	l.must(t, "unshare", "--mount", "ROOT=m", "sh", "-c", `touch "$ROOT/srv/mine"`)
	for _, line := range []string{"diff m", "diff --tar -o dest/x.tar m", "commit m new:1", "commit m oci:dest/l:1", "commit --rm m new:1"} {
		l.expect(t, line, 1, "unsupported")
	}
}

// A user without subordinate ids has one id to work with; what needs more is refused.
func TestRefusesMissingSubordinateIDs(t *testing.T) {
	testenv.Root(t)
	const nobody = 54321 // no login, no ranges
	l := newLab(t)
	check(t, filepath.WalkDir(l.dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}))
	as := func(line string) *exec.Cmd {
		cmd := exec.Command(binary, strings.Fields("--log-level error "+line)...) // it warns of the one id
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	for _, line := range []string{"images", "from --name one scratch", "mount one -- touch file", "rm one", "from --name two scratch", "mount two -- true"} {
		if r := l.command(as(line)); r.code != 0 {
			t.Errorf("kimg %s: exit %d: %s", line, r.code, r.err)
		}
	}
	for _, line := range []string{
		"from --uidmap 0:1:10 scratch", "from --uidmap 0:0:2 scratch", "from --uidmap 0:0:1 --gidmap 0:5:1 scratch", "from --subuidname root scratch",
	} {
		l.expectCommand(t, as(line), line, 1, "denied")
	}
	l.expectCommand(t, as("add --chown 7 two file /x"), "add --chown 7", 1, "invalid")
}

// What is copied or imported is looked at before it is read: nothing hangs, nothing strange is taken.
func TestRefusesStrangeFiles(t *testing.T) {
	l := fixture(t)
	check(t, unix.Mkfifo(filepath.Join(l.work, "fifo"), 0o600))
	for _, line := range []string{"add c1 fifo /x", "add c1 /dev/zero /x", "import fifo new:1", "import /dev/zero new:1"} {
		l.expect(t, line, 1, "unsafe")
	}
	for name, text := range map[string]string{"gz": "\x1f\x8b\x08\x00garbage", "text": strings.Repeat("not a tar ", 200)} {
		check(t, os.WriteFile(filepath.Join(l.work, name), []byte(text), 0o600))
		before := l.snapshot()
		r := l.kimg("import", name, "new:1")
		if refused(r, 1, "invalid") != nil && refused(r, 1, "integrity") != nil {
			t.Errorf("import %s: exit %d: %s", name, r.code, r.err)
		}
		if d := before.differs(l.snapshot()); d != "" {
			t.Errorf("import %s changed:\n%s", name, d)
		}
	}
	// A directory nobody may write, a result file that cannot be.
	l.expect(t, "diff --tar -o nodir/x c1", 1, "notfound")
	l.expect(t, "commit --iidfile nodir/x c1 new:1", 1, "notfound")
	l.expect(t, "commit --metadata-file nodir/x c1 new:1", 1, "notfound")
	l.expect(t, "from --cidfile nodir/x base:1", 1, "notfound")
	l.expect(t, "commit c1 oci:file/below", 2, "invalid")
}

// A store on a read-only file system is refused, whatever is asked of it.
func TestRefusesReadOnlyStore(t *testing.T) {
	testenv.Root(t)
	l := fixture(t)
	for _, dir := range []string{l.root()} {
		check(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
		check(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}
	reading := map[string]bool{}
	for _, line := range []string{"images", "ps", "ps --all", "info", "mount", "check"} {
		reading[line] = true
	}
	for _, line := range slices.Concat(lines(except(onContainer, "umount"), "c1", ""), lines(onImage, "", "base:1"), onStore) {
		before := l.snapshot()
		r := l.kimg(strings.Fields(line)...)
		if refused(r, 1, "readonly") != nil && !(reading[line] && r.code == 0) {
			t.Errorf("kimg %s: exit %d: %s", line, r.code, r.err)
		}
		if d := before.differs(l.snapshot()); d != "" {
			t.Errorf("kimg %s changed:\n%s", line, d)
		}
	}
}

// A disk that is full takes nothing and loses nothing.
func TestRefusesFullDisk(t *testing.T) {
	testenv.Root(t)
	dir, err := os.MkdirTemp("/tmp", "ks")
	check(t, err)
	t.Cleanup(func() { destroy(t, dir) })
	check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"))
	l := newLabIn(t, dir)
	fill(t, l)
	check(t, os.WriteFile(filepath.Join(l.work, "big"), make([]byte, 2<<20), 0o600))
	l.must(t, "add", "c1", "big", "/srv/big")
	check(t, os.MkdirAll(filepath.Join(l.work, "tree/big"), 0o755))
	check(t, os.WriteFile(filepath.Join(l.work, "tree/big/file"), make([]byte, 2<<20), 0o600))
	random := make([]byte, 2<<20) // stays as large when it is compressed
	rand.NewChaCha8([32]byte{}).Read(random)
	check(t, os.Mkdir(filepath.Join(l.work, "random"), 0o755))
	check(t, os.WriteFile(filepath.Join(l.work, "random/file"), random, 0o600))
	l.must(t, "import", "random", "big:1")
	// An image whose layer the store does not have: it would be used again.
	random[0] ^= 1
	check(t, os.WriteFile(filepath.Join(l.work, "random/file"), random, 0o600))
	l.must(t, "import", "random", "gone:1")
	l.must(t, "convert", "gone:1", "dir:image")
	l.must(t, "rmi", "gone:1")
	l.must(t, "images")
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	check(t, err)
	for chunk := make([]byte, 64<<10); ; {
		if _, err := ballast.Write(chunk); err != nil {
			break
		}
	}
	check(t, ballast.Truncate(must(ballast.Seek(0, 2))-1<<20)) // room for records, not for layers
	check(t, ballast.Close())
	for _, line := range []string{
		"add c2 big /srv/big", "add c2 tree /srv", "commit c1 new:1", "commit c1 oci:dest/layout:1", "commit c1 new:1 oci:dest/both:1",
		"commit --format docker c1 new:1", "import tree new:1", "diff --tar -o dest/x.tar c1",
		"convert big:1 dir:dest/image", "convert big:1 oci:dest/image:1", "convert big:1 docker-archive:dest/x.tar:x", "convert dir:image new:1",
	} {
		l.expect(t, line, 1, "nospace")
	}
	// Not even room for records.
	full, err := os.Create(filepath.Join(dir, "full"))
	check(t, err)
	for _, size := range []int{64 << 10, 4 << 10} {
		for chunk := make([]byte, size); ; {
			if _, err := full.Write(chunk); err != nil {
				break
			}
		}
	}
	check(t, full.Close())
	for _, line := range []string{
		"from base:1", "from --cidfile dest/cid scratch", "add c2 file /srv/new", "commit c2 new:1", "config --env A=1 c2", "tag base:1 new:1",
		"import other new:1", "commit --iidfile dest/id c2 new:1",
	} {
		l.expect(t, line, 1, "nospace")
	}
	// With room again, everything works.
	check(t, os.Remove(filepath.Join(dir, "full")))
	check(t, os.Remove(filepath.Join(dir, "ballast")))
	for _, line := range []string{"check", "commit c1 new:1", "add c2 big /srv/big", "commit --rm c2 new:2", "diff new:1"} {
		l.must(t, strings.Fields(line)...)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
