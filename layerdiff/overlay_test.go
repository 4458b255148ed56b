package layerdiff_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// container is an overlay that the kernel mounts, as the overlay driver of containers/storage does for a container.
type container struct {
	t       testing.TB
	stack   view.Stack
	work    string
	options string
	Merged  string
}

// newContainer makes the layers, top first, and mounts an empty upper directory on them.
func newContainer(t testing.TB, layers ...testimage.Tree) *container {
	t.Helper()
	return newContainerWith(t, unmoved, layers...)
}

// newContainerWith does so with options of the mount.
func newContainerWith(t testing.TB, options string, layers ...testimage.Tree) *container {
	t.Helper()
	dir := tempDir(t)
	c := &container{t: t, work: filepath.Join(dir, "work"), options: options, Merged: filepath.Join(dir, "merged")}
	c.stack.Upper, c.stack.XattrPrefix = filepath.Join(dir, "upper"), prefix()
	for _, d := range []string{c.work, c.Merged, c.stack.Upper} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, tree := range layers {
		lower := filepath.Join(dir, fmt.Sprint("lower", i))
		if err := os.Mkdir(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := here(tree).Write(lower); err != nil {
			t.Fatal(err)
		}
		c.stack.Lowers = append(c.stack.Lowers, lower)
	}
	c.mount()
	t.Cleanup(func() { _ = unix.Unmount(c.Merged, unix.MNT_DETACH) })
	return c
}

func (c *container) mount() {
	c.t.Helper()
	must(c.t, os.RemoveAll(filepath.Join(c.work, "work", "incompat"))) // it was unmounted, and nothing crashed since
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off,volatile", strings.Join(c.stack.Lowers, ":"), c.stack.Upper, c.work)
	if err := mount(c.Merged, 0, options+c.options); err != nil {
		testenv.Skip(c.t, "cannot mount an overlay: %v", err)
	}
}

// unmoved are the options of a mount that neither redirects directories nor leaves content below.
const unmoved = ",redirect_dir=off,metacopy=off"

// mount mounts an overlay with the attributes of whoever runs the tests.
func mount(dir string, flags uintptr, options string) error {
	if testenv.IsRoot() {
		return unix.Mount("overlay", dir, "overlay", flags, options)
	}
	return unix.Mount("overlay", dir, "overlay", flags, strings.TrimSuffix(options, unmoved)+",userxattr") // which implies that
}

func (c *container) remount() {
	c.t.Helper()
	if err := unix.Unmount(c.Merged, 0); err != nil {
		c.t.Fatal(err)
	}
	c.mount()
}

func (c *container) path(name string) string { return filepath.Join(c.Merged, name) }

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

var base = testimage.Tree{
	{Path: "etc", Type: 'd', Mode: 0o755},
	{Path: "etc/passwd", Mode: 0o644, Data: "root\n"},
	{Path: "etc/link", Type: 'l', Link: "passwd"},
	{Path: "usr", Type: 'd', Mode: 0o755},
	{Path: "usr/bin", Type: 'd', Mode: 0o755},
	{Path: "usr/bin/a", Mode: 0o755, Fill: 100000},
	{Path: "usr/bin/b", Mode: 0o4755, Data: "b", Xattrs: map[string]string{"user.x": "1"}},
	{Path: "usr/bin/c", Mode: 0o755, Data: "c"},
	{Path: "big", Mode: 0o600, Fill: 1 << 20},
	{Path: "null", Type: 'c', Mode: 0o666, Major: 1, Minor: 3},
}

// Deletions give the same layer whether they were made under one mount, where the kernel lets whiteouts share an inode,
// or under several.
func TestWhiteoutsAreCanonical(t *testing.T) {
	var digests []string
	for _, remount := range []bool{false, true} {
		c := newContainer(t, base)
		for _, name := range []string{"usr/bin/a", "usr/bin/b", "etc/passwd"} {
			must(t, os.Remove(c.path(name)))
			if remount {
				c.remount()
			}
		}
		epoch := time.Unix(1, 0)
		must(t, os.Chtimes(c.path("usr/bin"), epoch, epoch), os.Chtimes(c.path("etc"), epoch, epoch))
		_, blob := staged(t, c.stack, layerdiff.Options{})
		data, _ := layer(t, c.stack, layerdiff.Options{})
		if got, want := names(t, data), "etc/ etc/.wh.passwd usr/ usr/bin/ usr/bin/.wh.a usr/bin/.wh.b"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for _, m := range members(t, data) {
			if strings.Contains(m.Name, ".wh.") && (m.Mode != 0 || m.Uid != 0 || m.Linkname != "" || m.ModTime.Unix() != 0) {
				t.Errorf("%+v", m.Header)
			}
		}
		digests = append(digests, blob.DiffID.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("one mount %s, several %s", digests[0], digests[1])
	}
}

// What overlay copied up and nobody changed is not a change.
func TestUnmodifiedCopiesAreLeftOut(t *testing.T) {
	c := newContainer(t, base)
	for _, name := range []string{"usr/bin/a", "usr/bin/b", "big"} {
		f, err := os.OpenFile(c.path(name), os.O_RDWR, 0)
		must(t, err)
		must(t, f.Close())
	}
	for _, name := range []string{"etc/link", "null"} {
		must(t, unix.Lchown(c.path(name), 0, 0))
	}
	must(t, os.Rename(c.path("etc/passwd"), c.path("etc/p")), os.Rename(c.path("etc/p"), c.path("etc/passwd")))
	st, err := os.Stat(filepath.Join(c.stack.Lowers[0], "etc"))
	must(t, err)
	must(t, os.Chtimes(c.path("etc"), st.ModTime(), st.ModTime())) // the renames changed it
	if entries, _ := os.ReadDir(filepath.Join(c.stack.Upper, "usr/bin")); len(entries) != 2 {
		t.Fatalf("nothing was copied up: %v", entries)
	}
	dir, blob := staged(t, c.stack, layerdiff.Options{})
	if !blob.Empty || blob.DiffID != "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef" {
		data, _ := layer(t, c.stack, layerdiff.Options{})
		t.Fatalf("%+v %s", blob, names(t, data))
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("staged %v", entries)
	}
	if got := changes(t, c.stack, layerdiff.Options{}); len(got) > 0 {
		t.Errorf("%v", got)
	}

	// One bit each, everything else as before, is a change.
	f, err := os.OpenFile(c.path("usr/bin/a"), os.O_RDWR, 0)
	must(t, err)
	st, err = f.Stat()
	must(t, err)
	_, err = f.WriteAt([]byte{0}, 99999)
	must(t, err, f.Close(), os.Chtimes(c.path("usr/bin/a"), st.ModTime(), st.ModTime()))
	must(t, unix.Lsetxattr(c.path("usr/bin/b"), "user.x", []byte("2"), 0), os.Chmod(c.path("big"), 0o640))
	must(t, os.Lchown(c.path("etc/link"), 5, 0))
	data, _ := layer(t, c.stack, layerdiff.Options{})
	if got, want := names(t, data), "big etc/ etc/link usr/ usr/bin/ usr/bin/a usr/bin/b"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A directory that replaced another is compared with it: what is gone is deleted by name, what is as before is left out. One
// that is new hides nothing, whatever marks the kernel set.
func TestReplacedDirectories(t *testing.T) {
	c := newContainer(t, testimage.Tree{{Path: "usr/lib/x", Mode: 0o644, Data: "x"}}, base)
	st, err := os.Stat(c.path("usr/bin/c"))
	must(t, err)
	must(t, os.RemoveAll(c.path("usr/bin")), os.Mkdir(c.path("usr/bin"), 0o755),
		os.WriteFile(c.path("usr/bin/b"), []byte("new"), 0o755), os.WriteFile(c.path("usr/bin/z"), nil, 0o644),
		os.WriteFile(c.path("usr/bin/c"), []byte("c"), 0o755), os.Chtimes(c.path("usr/bin/c"), st.ModTime(), st.ModTime()),
		os.Remove(c.path("big")), os.Mkdir(c.path("big"), 0o755),
		os.Mkdir(c.path("fresh"), 0o755), os.Mkdir(c.path("fresh/sub"), 0o755),
		os.RemoveAll(c.path("etc")))
	data, _ := layer(t, c.stack, layerdiff.Options{})
	want := "big/ .wh.etc fresh/ fresh/sub/ usr/ usr/bin/ usr/bin/.wh.a usr/bin/b usr/bin/z"
	if got := names(t, data); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got := strings.Join(changes(t, c.stack, layerdiff.Options{}), " ")
	want = "C/big D/etc A/fresh A/fresh/sub C/usr C/usr/bin D/usr/bin/a C/usr/bin/b A/usr/bin/z"
	if got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
	dir, _ := staged(t, c.stack, layerdiff.Options{})
	same(t, "staged", snapshot(t, c.Merged, false), overlaid(t, c.stack, dir))
	for _, d := range []string{"usr/bin", "fresh"} {
		if _, err := unix.Lgetxattr(filepath.Join(dir, d), prefix()+"opaque", nil); err != unix.ENODATA {
			t.Errorf("%s is marked opaque: %v", d, err)
		}
	}
}

// A deletion of what no layer below has deletes nothing.
func TestPointlessWhiteouts(t *testing.T) {
	c := newContainer(t, testimage.Tree{{Path: "gone", Type: 'c'}, {Path: "a", Mode: 0o600}}, testimage.Tree{{Path: "gone", Mode: 0o600}})
	for _, name := range []string{"gone", "never"} {
		must(t, unix.Mknod(filepath.Join(c.stack.Upper, name), unix.S_IFCHR, 0))
	}
	if _, blob := staged(t, c.stack, layerdiff.Options{}); !blob.Empty {
		t.Errorf("%+v", blob)
	}
	if got := changes(t, c.stack, layerdiff.Options{}); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

// Whatever a container does to its tree: the layer on top of the same lower layers shows the same tree, staged and
// unpacked by another program, and the list of changes names what differs.
func TestLayerShowsWhatTheContainerSaw(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newContainer(t, plain(testimage.Random(seed+100, 60)), plain(testimage.Random(seed+200, 60)), base)
			r := rand.New(rand.NewPCG(seed, 7))
			for range 80 {
				mutate(c.Merged, r)
				if r.IntN(30) == 0 {
					c.remount()
				}
			}
			want := snapshot(t, c.Merged, false)
			dir, _ := staged(t, c.stack, layerdiff.Options{})
			same(t, "staged", want, overlaid(t, c.stack, dir))
			data, _ := layer(t, c.stack, layerdiff.Options{Jobs: 1})
			unpacked := tempDir(t)
			must(t, archive.Unpack(bytes.NewReader(data), unpacked, &archive.TarOptions{
				WhiteoutFormat: archive.OverlayWhiteoutFormat, WhiteoutData: c.stack.Lowers}))
			whole := func(items []testimage.Item) []testimage.Item {
				for i := range items {
					items[i].Nsec = 0
				}
				return items
			}
			same(t, "unpacked", whole(want), whole(overlaid(t, c.stack, unpacked)))
			checkChanges(t, c)
		})
	}
}

// plain drops what the library cannot unpack faithfully, and links, which copying up breaks by itself.
func plain(tree testimage.Tree) testimage.Tree {
	var out testimage.Tree
	for _, n := range tree {
		delete(n.Xattrs, "system.posix_acl_default")
		if n.Type != 'h' {
			out = append(out, n)
		}
	}
	return out
}

// overlaid describes a layer on top of the lower layers of a stack, as the kernel shows it.
func overlaid(t testing.TB, stack view.Stack, top string) []testimage.Item {
	t.Helper()
	merged := tempDir(t)
	lowers := append([]string{top}, stack.Lowers...)
	must(t, mount(merged, unix.MS_RDONLY, "lowerdir="+strings.Join(lowers, ":")+unmoved))
	defer unix.Unmount(merged, 0)
	return snapshot(t, merged, false)
}

// mutate does one thing to a tree. Failing is fine: not everything can be done to everything.
func mutate(root string, r *rand.Rand) {
	paths := []string{root}
	_ = filepath.WalkDir(root, func(p string, _ os.DirEntry, _ error) error { paths = append(paths, p); return nil })
	pick := func() string { return paths[r.IntN(len(paths))] }
	p := pick()
	if p == root {
		p = filepath.Join(root, "new")
	}
	fresh := filepath.Join(filepath.Dir(p), fmt.Sprintf("m%d", r.IntN(1000)))
	switch r.IntN(14) {
	case 0, 1:
		_ = os.RemoveAll(p)
	case 2:
		_ = os.RemoveAll(p)
		_ = os.Mkdir(p, 0o755)
		_ = os.WriteFile(filepath.Join(p, "in"), []byte("inside"), 0o644)
	case 3:
		_ = os.RemoveAll(p)
		_ = os.WriteFile(p, []byte("a file now"), 0o600)
	case 4:
		_ = os.Rename(p, fresh)
	case 5:
		_ = os.Rename(p, fresh)
		_ = os.Rename(fresh, p)
	case 6:
		_ = os.Lchown(p, r.IntN(70000), 3)
	case 7:
		_ = unix.Lsetxattr(p, "user.m", []byte{byte(r.Uint32())}, 0)
	case 8:
		if f, err := os.OpenFile(p, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err == nil {
			// A device would do what it does when it is written to.
			if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && r.IntN(2) == 0 {
				_, _ = f.WriteString("changed")
			}
			_ = f.Close()
		}
	case 9:
		_ = os.Symlink(pick(), fresh)
	case 10:
		if st, err := os.Lstat(fresh); err == nil && !st.Mode().IsRegular() {
			return
		}
		_ = os.WriteFile(fresh, make([]byte, r.IntN(400000)), 0o640)
		_ = os.Link(fresh, fresh+"-link")
	case 11:
		_ = os.MkdirAll(filepath.Join(fresh, "deep", "er"), 0o2750)
	case 12:
		_ = os.Chtimes(p, time.Time{}, time.Unix(r.Int64N(1<<31), r.Int64N(1e9)))
	case 13:
		_ = unix.Mknod(fresh, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(r.IntN(9)))))
	}
}

// checkChanges compares the list of changes with a comparison of two mounted trees.
func checkChanges(t *testing.T, c *container) {
	t.Helper()
	before := map[string]testimage.Item{}
	for _, i := range overlaid(t, c.stack, tempDir(t)) {
		before[i.Path] = i
	}
	want := map[string]bool{}
	after := snapshot(t, c.Merged, false)
	for _, i := range after {
		old, found := before[i.Path]
		delete(before, i.Path)
		i.Group, old.Group = "", ""
		switch {
		case !found:
			want["A/"+i.Path] = true
		case i != old:
			want["C/"+i.Path] = true
		}
	}
	parents := func(p string) {
		for p = filepath.Dir(p); p != "."; p = filepath.Dir(p) {
			if !want["A/"+p] {
				want["C/"+p] = true
			}
		}
	}
	for _, i := range after {
		if want["A/"+i.Path] || want["C/"+i.Path] {
			parents(i.Path)
		}
	}
	now := map[string]byte{}
	for _, i := range after {
		now[i.Path] = i.Type
	}
	for p := range before { // what is gone; only the topmost name, and only under a directory that is still one
		if parent := filepath.Dir(p); parent == "." || now[parent] == 'd' {
			want["D/"+p] = true
			parents(p)
		}
	}
	for _, got := range changes(t, c.stack, layerdiff.Options{}) {
		if !want[got] {
			t.Errorf("listed for no reason: %s", got)
		}
		delete(want, got)
	}
	for p := range want {
		t.Errorf("not listed: %s", p)
	}
}

// changes lists changes as kind and path.
func changes(t testing.TB, stack view.Stack, o layerdiff.Options) []string {
	t.Helper()
	var out []string
	for c, err := range layerdiff.Changes(t.Context(), stack, o) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Kind.String()+c.Path)
	}
	return out
}

// Marks that cannot be followed are refused by name, in the upper directory and in a lower one; those that say nothing
// about the tree are passed over.
func TestForeignMarks(t *testing.T) {
	for _, c := range []struct {
		name, attr, value string
		node              testimage.Node
	}{
		{"no content", "trusted.overlay.metacopy", "", testimage.Node{Path: "d/x", Mode: 0o644}},
		{"climbing redirect", "trusted.overlay.redirect", "/a/../../etc", testimage.Node{Path: "d/x", Type: 'd', Mode: 0o755}},
		{"redirect of two names", "trusted.overlay.redirect", "a/b", testimage.Node{Path: "d/x", Type: 'd', Mode: 0o755}},
		{"empty redirect", "trusted.overlay.redirect", "", testimage.Node{Path: "d/x", Type: 'd', Mode: 0o755}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.node.Xattrs = map[string]string{c.attr: c.value}
			stack := upper(t, testimage.Tree{c.node})
			refused(t, stack, layerdiff.Options{}, kimg.ErrDamaged, "/d/x: ")
			if c.node.Type == 'd' {
				lower := stack.Upper
				stack = upper(t, testimage.Tree{{Path: "d/x/file", Mode: 0o644}}, lower)
				refused(t, stack, layerdiff.Options{}, kimg.ErrDamaged, "/d/x: in a lower layer: ")
			}
		})
	}
	// Marks that say nothing about content are dropped, and what only the host's file system means something to.
	stack := upper(t, testimage.Tree{{Path: "f", Mode: 0o644, Xattrs: map[string]string{
		"trusted.overlay.origin": "o", "trusted.overlay.impure": "y", "trusted.overlay.nlink": "L+1", "user.overlay.x": "v",
		"trusted.SGI_ACL_FILE": "x", "security.selinux": "label"}}})
	data, _ := layer(t, stack, layerdiff.Options{})
	if m := members(t, data); len(m) != 1 || len(m[0].PAXRecords) != 0 {
		t.Errorf("%+v", m)
	}
}

// refused checks that all three ways to read a stack fail in the same way.
func refused(t testing.TB, stack view.Stack, o layerdiff.Options, class kimg.Class, text string) {
	t.Helper()
	_, werr := layerdiff.Write(t.Context(), &bytes.Buffer{}, stack, o)
	_, serr := layerdiff.Stage(t.Context(), tempDir(t), nil, stack, o)
	var cerr error
	for _, err := range layerdiff.Changes(t.Context(), stack, o) {
		cerr = err
	}
	for what, err := range map[string]error{"Write": werr, "Stage": serr, "Changes": cerr} {
		if !errors.Is(err, class) || !strings.Contains(kimg.Line(err), text) {
			t.Errorf("%s: %s, want class %s and %q", what, kimg.Line(err), class, text)
		}
	}
}
