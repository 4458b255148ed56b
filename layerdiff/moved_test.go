package layerdiff_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// mountings are the ways in which a kernel may keep what a container does, the plain one first. An ordinary user's keeps it in
// that way only.
func mountings() []string {
	all := []string{unmoved, ",redirect_dir=on,metacopy=off", ",metacopy=on", ",redirect_dir=on,metacopy=on"}
	if !testenv.IsRoot() {
		return all[:1]
	}
	return all
}

// lowerTrees are the layers below, with something of every kind to move, hide and copy up. Links are left to the changes:
// copying up breaks those of a layer, differently from one way of mounting to another.
var lowerTrees = []testimage.Tree{
	{
		{Path: "a", Type: 'd', Mode: 0o755}, {Path: "a/top", Mode: 0o644, Data: "top"}, {Path: "a/gone", Type: 'c'},
		{Path: "a/deep", Type: 'd', Mode: 0o750}, {Path: "a/deep/big", Mode: 0o644, Fill: 300 << 10},
		{Path: "o", Type: 'd', Mode: 0o755, Xattrs: map[string]string{"trusted.overlay.opaque": "y"}}, {Path: "o/new", Mode: 0o600},
	},
	{
		{Path: "a", Type: 'd', Mode: 0o700}, {Path: "a/gone", Mode: 0o644, Data: "gone"}, {Path: "a/mid", Mode: 0o600, Data: "mid", UID: 3},
		{Path: "a/deep", Type: 'd', Mode: 0o755}, {Path: "a/deep/er", Type: 'd', Mode: 0o755}, {Path: "a/deep/er/f", Mode: 0o644, Data: "f"},
		{Path: "o", Type: 'd', Mode: 0o755}, {Path: "o/hidden", Mode: 0o600},
		{Path: "b", Type: 'd', Mode: 0o755, Xattrs: map[string]string{"user.d": "1"}}, {Path: "b/s", Type: 'd', Mode: 0o1755, GID: 7},
		{Path: "b/s/x", Mode: 0o4755, Data: "x", Xattrs: map[string]string{"user.x": "1"}}, {Path: "b/link", Type: 'l', Link: "s/x"},
		{Path: "b/pipe", Type: 'p', Mode: 0o600}, {Path: "b/sparse", Mode: 0o644, Size: 200 << 10},
	},
}

// change is one thing a container does. What to is done to depends on the tree, in the same way for equal trees.
type change struct {
	kind, from, to int
}

var changeKinds = []string{
	"write", "append", "touch", "chmod", "chown", "xattr", "time", "remove", "mkdir", "link", "symlink", "device", "move", "move",
	"move", "away and back", "replace directory", "copy", "remount", "chmod",
}

// do makes a change. Failing is fine, as long as it fails in every kind of container.
func (c *container) do(ch change) {
	var all, dirs []string
	_ = filepath.WalkDir(c.Merged, func(p string, d fs.DirEntry, _ error) error {
		if p != c.Merged {
			all = append(all, p)
		}
		if d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	if len(all) == 0 {
		all = append(all, filepath.Join(c.Merged, "none"))
	}
	p, dir := all[ch.from%len(all)], dirs[ch.to%len(dirs)]
	fresh := filepath.Join(dir, fmt.Sprint("n", ch.to%7))
	when := time.Unix(1700000000+int64(ch.to%3), 0)
	switch changeKinds[ch.kind] {
	case "write":
		if st, err := os.Lstat(fresh); err == nil && !st.Mode().IsRegular() {
			return // writing into a FIFO waits for a reader, into a device does what the device does
		}
		_ = os.WriteFile(fresh, bytes.Repeat([]byte{byte(ch.from)}, ch.to%70000), 0o640)
		_ = os.Chtimes(fresh, when, when)
	case "append", "touch":
		before, err := os.Lstat(p)
		if err != nil {
			break
		}
		if f, err := os.OpenFile(p, os.O_RDWR|os.O_APPEND|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err == nil {
			st, _ := f.Stat()
			switch {
			case changeKinds[ch.kind] == "append" && st.Mode().IsRegular():
				_, _ = f.WriteString("more")
				_ = os.Chtimes(p, when, when)
			case st.Mode().IsRegular(): // a kernel that copies up the content of a metacopy file counts that as a change of it
				_ = os.Chtimes(p, time.Time{}, before.ModTime())
			}
			_ = f.Close()
		}
	case "chmod":
		if st, err := os.Lstat(p); err == nil && st.Mode()&fs.ModeSymlink == 0 {
			_ = unix.Chmod(p, uint32(0o700+ch.to%64))
		}
	case "chown":
		_ = os.Lchown(p, ch.to%70, 3)
	case "xattr":
		_ = unix.Lsetxattr(p, "user.m", []byte{byte(ch.to)}, 0)
	case "time":
		_ = unix.Lutimes(p, []unix.Timeval{{Sec: when.Unix()}, {Sec: when.Unix()}})
	case "remove":
		_ = os.RemoveAll(p)
	case "mkdir":
		_ = os.MkdirAll(filepath.Join(fresh, "deep", "er"), 0o1750)
	case "link":
		_ = os.Link(p, p+"l")
	case "symlink":
		_ = os.Symlink(fmt.Sprint(ch.from), fresh)
		_ = unix.Lutimes(fresh, []unix.Timeval{{Sec: when.Unix()}, {Sec: when.Unix()}})
	case "device":
		_ = unix.Mknod(fresh, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(ch.from%9))))
		_ = os.Chtimes(fresh, when, when)
	case "move":
		c.move(p, fresh)
	case "away and back":
		c.move(p, p+"away")
		c.move(p+"away", p)
	case "replace directory":
		if st, err := os.Lstat(p); err == nil && st.IsDir() {
			_ = os.RemoveAll(p)
			_ = os.Mkdir(p, 0o755)
			_ = os.WriteFile(filepath.Join(p, "top"), []byte("top"), 0o644)
			_ = os.Chtimes(filepath.Join(p, "top"), when, when)
		}
	case "copy":
		if !strings.HasPrefix(fresh+"/", p+"/") && !strings.HasPrefix(p+"/", fresh+"/") {
			// Not into a FIFO that is there, which waits for a reader, nor into a device.
			_ = exec.Command("cp", "-a", "-T", "--remove-destination", p, fresh).Run()
		}
	case "remount":
		c.remount()
	}
	c.settle()
}

// settle gives every file that was changed just now one time, so that equal changes make equal trees.
func (c *container) settle() {
	_ = filepath.WalkDir(c.Merged, func(p string, d fs.DirEntry, _ error) error {
		if st, err := os.Lstat(p); err == nil && st.ModTime().Unix() > 1700001000 {
			_ = unix.Lutimes(p, []unix.Timeval{{Sec: 1700000000}, {Sec: 1700000000}})
		}
		return nil
	})
}

// move renames a file or, where the kernel refuses to, what is in it one by one, as programs do.
func (c *container) move(from, to string) {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EXDEV) {
		return
	}
	var st unix.Stat_t
	must(c.t, unix.Lstat(from, &st), os.Mkdir(to, 0o700), os.Lchown(to, int(st.Uid), int(st.Gid)), unix.Chmod(to, st.Mode&0o7777))
	for _, name := range []string{"user.d", "user.m"} {
		value := make([]byte, 8)
		if n, err := unix.Lgetxattr(from, name, value); err == nil {
			must(c.t, unix.Lsetxattr(to, name, value[:n], 0))
		}
	}
	entries, err := os.ReadDir(from)
	must(c.t, err)
	for _, e := range entries {
		c.move(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	}
	must(c.t, os.Remove(from), unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Mtim, st.Mtim}, 0))
}

// E8: However the kernel kept what a container did, the layer is the same, byte for byte; it is also what a comparison of the
// two whole trees gives. The base and the layer unpacked by tar, and by umoci, are the tree that the container saw, and so is what the view
// shows of it. For more than 100 of them: -rapid.checks=N.
func TestHowItWasKeptDoesNotMatter(t *testing.T) {
	testenv.Need(t, "tar", "cp", "getfattr", "umoci")
	rapid.Check(t, func(rt *rapid.T) {
		changes := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) change {
			return change{
				rapid.IntRange(0, len(changeKinds)-1).Draw(rt, "kind"), rapid.IntRange(0, 1<<20).Draw(rt, "from"),
				rapid.IntRange(0, 1<<20).Draw(rt, "to"),
			}
		}), 1, 20).Draw(rt, "changes")
		other := rapid.SampledFrom(mountings()).Draw(rt, "mounting")
		plain := newContainerWith(t, unmoved, lowerTrees...)
		defer plain.drop()
		c := newContainerWith(t, other, lowerTrees...)
		defer c.drop()
		for _, ch := range changes {
			plain.do(ch)
			c.do(ch)
		}
		// Without file handles the kernel shows a file that was linked another inode number until it is mounted again.
		plain.remount()
		c.remount()
		want := snapshot(t, plain.Merged, false)
		if diff := testimage.Diff(want, snapshot(t, c.Merged, false)); len(diff) > 0 {
			rt.Fatalf("the test makes two trees:\n%s", strings.Join(diff, "\n"))
		}
		layer, digest := plain.write(rt, "plain", plain.stack)
		if data, got := c.write(rt, "other", c.stack); got != digest {
			rt.Fatalf("%s, plain %s", names(t, data), names(t, layer))
		}
		c.check(rt, want)
	})
}

// drop takes the container away before the end of the test.
func (c *container) drop() {
	must(c.t, unix.Unmount(c.Merged, 0), os.RemoveAll(filepath.Dir(c.Merged)))
}

// expect compares a tree with the one that is wanted.
func expect(rt *rapid.T, what string, want, got []testimage.Item) {
	if diff := testimage.Diff(want, got); len(diff) > 0 {
		rt.Errorf("%s:\n%s", what, strings.Join(diff[:min(len(diff), 10)], "\n"))
	}
}

// write returns the layer of a stack and its digest.
func (c *container) write(rt *rapid.T, what string, stack view.Stack) ([]byte, string) {
	var buf bytes.Buffer
	blob, err := layerdiff.Write(c.t.Context(), &buf, stack, layerdiff.Options{})
	if err != nil {
		rt.Fatalf("%s: %v", what, err)
	}
	return buf.Bytes(), blob.DiffID.String()
}

// sub makes a directory that ends with the container.
func (c *container) sub(name string) string {
	path := filepath.Join(filepath.Dir(c.Merged), name)
	must(c.t, os.Mkdir(path, 0o755))
	return path
}

// whole is the container's whole tree as a stack.
func (c *container) whole() view.Stack {
	stack := c.stack
	stack.Base = []string{}
	return stack
}

// check compares a container's layer with the tree want, and with the layers of other stacks that show the same.
func (c *container) check(rt *rapid.T, want []testimage.Item) {
	layer, digest := c.write(rt, "layer", c.stack)

	// Staged it is plain overlay.
	top := c.sub("top")
	if _, err := layerdiff.Stage(c.t.Context(), top, nil, c.stack, layerdiff.Options{Links: digest[8]&1 == 0}); err != nil {
		rt.Fatal(err)
	}
	expect(rt, "staged", want, overlaid(c.t, c.stack, top))
	attrs, err := exec.Command("getfattr", "-h", "-R", "-d", "-m", `overlay\.(opaque|redirect|metacopy|whiteout|overlay)`, top).CombinedOutput()
	if err != nil || len(attrs) > 0 {
		rt.Errorf("staged with marks (%v): %s", err, attrs)
	}

	// Whole trees, and other stacks that show the same.
	low := c.sub("low")
	must(c.t, mount(low, unix.MS_RDONLY, "lowerdir="+strings.Join(c.stack.Lowers, ":")+unmoved))
	defer func() { must(c.t, unix.Unmount(low, 0)) }()
	for what, stack := range map[string]view.Stack{
		"two mounts":      {Upper: c.Merged, Lowers: []string{low}, Plain: true},
		"staged on lower": {Lowers: append([]string{top}, c.stack.Lowers...), Base: c.stack.Lowers, XattrPrefix: prefix()},
		"upper, compared": {Upper: c.stack.Upper, Lowers: c.stack.Lowers, Base: c.stack.Lowers, XattrPrefix: prefix()},
	} {
		if data, got := c.write(rt, what, stack); got != digest {
			rt.Errorf("%s: %s, layer has %s", what, names(c.t, data), names(c.t, layer))
		}
	}

	// Unpacked by tar, what the view shows is the tree, and so are the base and the layer.
	tree, _ := c.write(rt, "view", c.whole())
	unpacked := c.sub("unpacked")
	apply(c.t, unpacked, tree)
	expect(rt, "view", want, snapshot(c.t, unpacked, false))

	base, _ := c.write(rt, "base", view.Stack{Lowers: c.stack.Lowers, XattrPrefix: prefix(), Base: []string{}})
	again := c.sub("again")
	apply(c.t, again, base)
	apply(c.t, again, layer)
	expect(rt, "base and layer", want, snapshot(c.t, again, false))
	if rapid.IntRange(0, 7).Draw(rt, "umoci") == 0 { // it takes as long as everything else
		layout, bundle := c.sub("layout"), filepath.Join(filepath.Dir(c.Merged), "bundle")
		must(c.t, testimage.NewImage(1, testimage.ImageOptions{Tars: [][]byte{base, layer}}).WriteOCI(layout, "t"))
		if out, err := exec.Command("umoci", "unpack", "--image", layout+":t", bundle).CombinedOutput(); err != nil {
			rt.Fatalf("umoci: %v\n%s", err, out)
		}
		expect(rt, "umoci", want, snapshot(c.t, filepath.Join(bundle, "rootfs"), false))
	}
}

// apply unpacks a layer with tar onto a tree.
func apply(t testing.TB, dir string, data []byte) {
	t.Helper()
	for _, m := range members(t, data) {
		path := filepath.Join(dir, m.Name)
		base := filepath.Base(path)
		if gone, ok := strings.CutPrefix(base, ".wh."); ok {
			must(t, os.RemoveAll(filepath.Join(filepath.Dir(path), gone)))
		} else if st, err := os.Lstat(path); err == nil && !(st.IsDir() && m.Typeflag == '5') {
			must(t, os.RemoveAll(path))
		} else if err == nil { // tar would only add attributes
			for _, name := range []string{"user.d", "user.m"} {
				_ = unix.Lremovexattr(path, name)
			}
		}
	}
	cmd := exec.Command("tar", "-xpf", "-", "-C", dir, "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "--exclude=.wh.*", "--delay-directory-restore")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}
