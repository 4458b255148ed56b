package layerdiff_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// mark is a node with one mark of overlay.
func mark(n testimage.Node, name, value string) testimage.Node {
	n.Xattrs = map[string]string{view.TrustedPrefix + name: value}
	return n
}

func metacopy(n testimage.Node, redirect string) testimage.Node {
	n.Xattrs = map[string]string{view.TrustedPrefix + "metacopy": ""}
	if redirect != "" {
		n.Xattrs[view.TrustedPrefix+"redirect"] = redirect
	}
	return n
}

// Marks as kernels write them, in layers put together by hand: what the view shows is what the kernel shows, and the layer
// is the difference. The first layer is the upper directory.
func TestMarks(t *testing.T) {
	dir := func(path string) testimage.Node { return testimage.Node{Path: path, Type: 'd', Mode: 0o755} }
	file := func(path, data string) testimage.Node { return testimage.Node{Path: path, Mode: 0o644, Data: data} }
	sized := func(path string, n int64) testimage.Node { return testimage.Node{Path: path, Mode: 0o600, Size: n} }
	whiteout := func(path string) testimage.Node { return testimage.Node{Path: path, Type: 'c'} }
	for _, c := range []struct {
		name, layer, whole string
		layers             []testimage.Tree
		ours               bool // the kernel lists names that it does not find then
	}{
		{
			"marked files are deletions",
			".wh.gone", "d/ d/keep f",
			[]testimage.Tree{
				{mark(file("gone", ""), "whiteout", "y"), mark(file("never", ""), "whiteout", "y")},
				{file("f", "")},
				{dir("d"), file("d/keep", "k"), file("gone", "g")},
			},
			true,
		},
		{
			"marked files in a marked directory",
			"new", "d/ d/keep f new",
			[]testimage.Tree{
				{file("new", "")},
				{mark(dir("d"), "opaque", "x"), mark(file("d/x", ""), "whiteout", ""), file("f", "")},
				{dir("d"), file("d/x", "x"), file("d/keep", "k")},
			},
			false,
		},
		{
			"relative redirect over three layers",
			".wh.mid new/ new/a new/b new/c", "new/ new/a new/b new/c old/ old/z",
			[]testimage.Tree{
				{mark(dir("new"), "redirect", "mid"), file("new/a", "a"), whiteout("mid")},
				{mark(dir("mid"), "redirect", "old"), file("mid/b", "b"), mark(dir("old"), "opaque", "y"), file("old/z", "z")},
				{dir("old"), file("old/c", "c"), dir("mid"), file("mid/hidden", "h")},
			},
			false,
		},
		{
			"absolute redirect through a redirected directory",
			"moved/ moved/.wh.sub new/ new/top new/x", "moved/ new/ new/top new/x",
			[]testimage.Tree{
				{mark(dir("new"), "redirect", "/moved/sub"), file("new/top", "t"), dir("moved"), whiteout("moved/sub")},
				{mark(dir("moved"), "redirect", "/deep/er"), whiteout("deep")},
				{dir("deep"), dir("deep/er"), dir("deep/er/sub"), file("deep/er/sub/x", "x")},
			},
			false,
		},
		{
			"redirect out of an opaque directory",
			".wh.d o/ o/d/ o/d/.wh.hidden o/d/x o/.wh.hidden", "o/ o/d/ o/d/x",
			[]testimage.Tree{
				{mark(dir("o"), "opaque", "y"), mark(dir("o/d"), "redirect", "/d"), whiteout("d")},
				{dir("d"), file("d/x", "x"), dir("o"), dir("o/d"), file("o/d/hidden", "h"), file("o/hidden", "h")},
			},
			false,
		},
		{
			"redirect to what is hidden or absent",
			"a/ b/ b/own c/", "a/ b/ b/own c/ file",
			[]testimage.Tree{
				{mark(dir("a"), "redirect", "gone"), mark(dir("b"), "redirect", "/no/such"), file("b/own", "o"), mark(dir("c"), "redirect", "/file/x")},
				{whiteout("gone"), file("file", "f")},
				{dir("gone"), file("gone/x", "x"), dir("file"), dir("file/x"), file("file/x/y", "y")},
			},
			false,
		},
		{
			"content two layers below, at other places",
			"f g/ g/m g/.wh.src", "f g/ g/m",
			[]testimage.Tree{
				{metacopy(sized("f", 4), "/g/src"), dir("g"), whiteout("g/src"), metacopy(testimage.Node{Path: "g/m", Mode: 0o640, Size: 4}, "")},
				{mark(dir("g"), "opaque", "n"), metacopy(sized("g/m", 4), "old"), whiteout("g/old")},
				{dir("g"), file("g/old", "data"), file("g/src", "four")},
			},
			false,
		},
		{
			"content of a lower metacopy file in a redirected directory",
			".wh.d n/ n/m", "n/ n/m x/",
			[]testimage.Tree{
				{mark(dir("n"), "redirect", "/d"), whiteout("d")},
				{dir("d"), metacopy(sized("d/m", 4), "/x/y"), dir("x"), whiteout("x/y")},
				{dir("x"), file("x/y", "deep")},
			},
			false,
		},
		{
			"marks without a meaning",
			"d/ f", "d/ f",
			[]testimage.Tree{
				{
					{Path: "d", Type: 'd', Mode: 0o700, Xattrs: map[string]string{"trusted.overlay.impure": "y", "trusted.overlay.origin": "o", "trusted.overlay.uuid": "u"}},
					{Path: "f", Mode: 0o600, Data: "new", Xattrs: map[string]string{"trusted.overlay.nlink": "U+1", "trusted.overlay.redirect": "/x"}},
				},
				{dir("d"), file("f", "old")},
			},
			false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var dirs []string
			for _, tree := range c.layers {
				dirs = append(dirs, upper(t, tree).Upper)
			}
			stack := view.Stack{Upper: dirs[0], Lowers: dirs[1:], XattrPrefix: prefix()}
			top, _ := staged(t, stack, layerdiff.Options{})
			layerData, blob := layer(t, stack, layerdiff.Options{Jobs: 1})
			if got := names(t, layerData); got != c.layer || len(blob.LeftOut) > 0 {
				t.Errorf("layer %s, want %s (%v)", got, c.layer, blob.LeftOut)
			}
			wholeData, _ := layer(t, view.Stack{Upper: dirs[0], Lowers: dirs[1:], XattrPrefix: prefix(), Base: []string{}}, layerdiff.Options{})
			if got := names(t, wholeData); got != c.whole {
				t.Errorf("tree %s, want %s", got, c.whole)
			}
			tree := tempDir(t)
			apply(t, tree, wholeData)
			want := snapshot(t, tree, false)
			// On the same layers the staged layer shows the same tree.
			data, _ := layer(t, view.Stack{Lowers: append([]string{top}, dirs[1:]...), XattrPrefix: prefix(), Base: []string{}}, layerdiff.Options{})
			if string(data) != string(wholeData) {
				t.Errorf("on the staged layer: %s", names(t, data))
			}
			if !testenv.IsRoot() || c.ours {
				return // the kernel follows redirects for root only
			}
			merged := tempDir(t)
			must(t, mount(merged, 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off,metacopy=on,redirect_dir=on",
				strings.Join(dirs[1:], ":"), dirs[0], tempDir(t))))
			defer unix.Unmount(merged, 0)
			same(t, "mounted", snapshot(t, merged, false), want)
		})
	}
}

// An attribute of the tree that only looks like a mark stays out and is listed, because what reads the layer would obey it.
// What nobody changed is not listed.
func TestEscapedAttributes(t *testing.T) {
	testenv.Need(t, "getfattr")
	escaped := map[string]string{"trusted.overlay.overlay.opaque": "y", "user.x": "v"}
	lower := upper(t, testimage.Tree{{Path: "same", Mode: 0o644, Data: "x", Xattrs: escaped}})
	stack := upper(t, testimage.Tree{
		{Path: "d", Type: 'd', Mode: 0o755, Xattrs: escaped}, {Path: "d/f", Mode: 0o644, Data: "f", Xattrs: escaped},
		{Path: "same", Mode: 0o644, Data: "x", Xattrs: escaped},
	}, lower.Upper)
	for _, links := range []bool{false, true} {
		dir, blob := staged(t, stack, layerdiff.Options{Links: links})
		attr := prefix() + "opaque"
		want := fmt.Sprintf("[{/d its attribute %q, which another overlay would obey} {/d/f its attribute %q, which another overlay would obey}]", attr, attr)
		if got := fmt.Sprint(blob.LeftOut); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for _, name := range []string{"d", "d/f"} {
			if out, _ := exec.Command("getfattr", "-d", "-m", "-", filepath.Join(dir, name)).CombinedOutput(); strings.Contains(string(out), "overlay.") {
				t.Errorf("%s", out)
			}
		}
	}
}

// Whole trees are compared as what they are: nothing in them is a mark.
func TestPlainTrees(t *testing.T) {
	old := upper(t, testimage.Tree{
		{Path: "a", Mode: 0o644, Data: "a"}, {Path: "b", Type: 'h', Link: "a"}, {Path: "c", Mode: 0o644, Data: "c"}, {Path: "d", Type: 'h', Link: "c"},
		{Path: "dir", Type: 'd', Mode: 0o755}, {Path: "dir/x", Mode: 0o600}, {Path: "s", Type: 's'}, {Path: "e", Mode: 0o644, Data: "one"},
	}).Upper
	now := upper(t, testimage.Tree{
		{Path: "a", Mode: 0o644, Data: "a"}, {Path: "b", Type: 'h', Link: "a"}, {Path: "c", Mode: 0o644, Data: "c"}, {Path: "d", Mode: 0o644, Data: "c"},
		{Path: "dd", Type: 'h', Link: "d"}, {Path: "dir", Type: 'd', Mode: 0o755, Xattrs: map[string]string{"trusted.overlay.opaque": "y"}},
		{Path: "s", Type: 's'}, {Path: "e", Mode: 0o644, Data: "two"},
	}).Upper
	stack := view.Stack{Upper: now, Lowers: []string{old}, Plain: true}
	data, _ := layer(t, stack, layerdiff.Options{})
	if got, want := names(t, data), "d dd dir/ dir/.wh.x e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := fmt.Sprint(changes(t, stack, layerdiff.Options{})), "[C/d A/dd C/dir D/dir/x C/e]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, s := range []view.Stack{{Upper: old, Lowers: []string{old}, Plain: true}, {Upper: old, Base: []string{old}, Plain: true}} {
		if data, blob := layer(t, s, layerdiff.Options{}); !blob.Empty {
			t.Errorf("a tree and itself: %s", names(t, data))
		}
	}
	if data, _ := layer(t, view.Stack{Upper: old, Plain: true}, layerdiff.Options{}); names(t, data) != "a b c d dir/ dir/x e" {
		t.Errorf("a tree and nothing: %s", names(t, data))
	}
	if data, _ := layer(t, view.Stack{Base: []string{old}}, layerdiff.Options{}); names(t, data) != ".wh.a .wh.b .wh.c .wh.d .wh.dir .wh.e .wh.s" {
		t.Errorf("nothing and a tree: %s", names(t, data))
	}
	must(t, unix.Mknod(filepath.Join(now, "dir", "w"), unix.S_IFCHR, 0))
	refused(t, stack, layerdiff.Options{}, kimg.ErrUnsupported, "/dir/w: ")
}

// Files that were made again with the names they had before, linked as before, are not a change; with another name they are.
func TestSameLinks(t *testing.T) {
	linked := testimage.Tree{{Path: "d", Type: 'd', Mode: 0o755}, {Path: "d/a", Mode: 0o644, Data: "x"}, {Path: "d/b", Type: 'h', Link: "d/a"}}
	lower := upper(t, linked).Upper
	if data, blob := layer(t, upper(t, linked, lower), layerdiff.Options{}); !blob.Empty {
		t.Errorf("made again: %s", names(t, data))
	}
	data, _ := layer(t, upper(t, append(linked, testimage.Node{Path: "e", Type: 'h', Link: "d/a"}), lower), layerdiff.Options{})
	if got := names(t, data); got != "d/ d/a d/b e" {
		t.Errorf("with another name: %s", got)
	}
	// A name that something else left, such as a commit that was killed, is none of the tree.
	stack := upper(t, testimage.Tree{{Path: "d", Type: 'd', Mode: 0o755}, {Path: "d/a", Mode: 0o644, Data: "x"}}, lower)
	must(t, os.Link(filepath.Join(stack.Upper, "d/a"), filepath.Join(tempDir(t), "left")))
	if data, blob := layer(t, stack, layerdiff.Options{}); !blob.Empty {
		t.Errorf("linked from elsewhere: %s", names(t, data))
	}
}

// What nobody changed is not looked at, however large the base is: neither below an upper directory with every kind of mark
// nor where two stacks share their layers. The trap is a directory that cannot be read.
func TestTheBaseIsNotWalked(t *testing.T) {
	trap := mark(testimage.Node{Path: "huge/sub/trap", Type: 'd', Mode: 0o755}, "redirect", "")
	lower := upper(t, testimage.Tree{
		{Path: "huge", Type: 'd', Mode: 0o755}, {Path: "huge/f", Mode: 0o644}, {Path: "huge/sub", Type: 'd', Mode: 0o755}, trap, {Path: "huge/g", Mode: 0o644, Data: "g"},
		{Path: "d", Type: 'd', Mode: 0o755}, {Path: "d/x", Mode: 0o644, Data: "x"}, {Path: "o", Type: 'd', Mode: 0o755}, {Path: "o/y", Mode: 0o644},
	}).Upper
	stack := upper(t, testimage.Tree{
		mark(testimage.Node{Path: "n", Type: 'd', Mode: 0o755}, "redirect", "d"), {Path: "d", Type: 'c'},
		mark(testimage.Node{Path: "o", Type: 'd', Mode: 0o755}, "opaque", "y"),
		mark(testimage.Node{Path: "huge", Type: 'd', Mode: 0o755}, "redirect", "/huge"),
		metacopy(testimage.Node{Path: "huge/g", Mode: 0o600, Size: 1}, ""), {Path: "new", Mode: 0o600},
	}, lower)
	const want = ".wh.d huge/ huge/g n/ n/x new o/ o/.wh.y"
	data, blob := layer(t, stack, layerdiff.Options{})
	if got := names(t, data); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	top, _ := staged(t, stack, layerdiff.Options{})

	// From the tree to the one below, and from another one on the same layers, there and back.
	other := upper(t, testimage.Tree{{Path: "d/x", Mode: 0o600, Data: "other"}, {Path: "new", Mode: 0o600}}).Upper
	for _, c := range []struct {
		layers, base []string
		want         string
	}{
		{[]string{top, lower}, []string{lower}, want},
		{[]string{lower}, []string{top, lower}, "d/ d/x huge/ huge/g .wh.n .wh.new o/ o/y"},
		{[]string{other, lower}, []string{top, lower}, "d/ d/x huge/ huge/g .wh.n o/ o/y"},
		{[]string{top, lower}, []string{other, lower}, ".wh.d huge/ huge/g n/ n/x o/ o/.wh.y"},
		{[]string{top, lower}, []string{top, lower}, ""},
	} {
		s := view.Stack{Lowers: c.layers, Base: c.base, XattrPrefix: prefix()}
		data, got := layer(t, s, layerdiff.Options{})
		if names(t, data) != c.want || c.want == want && got.DiffID != blob.DiffID {
			t.Errorf("%s, want %s", names(t, data), c.want)
		}
		if s.Upper, s.Lowers = s.Lowers[0], s.Lowers[1:]; len(s.Lowers) == 0 {
			continue // an upper directory is read as a whole
		}
		if again, _ := layer(t, s, layerdiff.Options{}); string(again) != string(data) {
			t.Errorf("with an upper directory: %s", names(t, again))
		}
	}
}
