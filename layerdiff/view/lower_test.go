//go:build linux

package view_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff/view"
)

// The merged lowers as the kernel would show them: what is on top wins, whiteouts and opaque directories hide, a file
// hides a directory, and no look-up follows a link.
func TestLowers(t *testing.T) {
	prefix, null := view.TrustedPrefix, testimage.Node{Path: "d/null", Type: 'c', Major: 1, Minor: 3}
	if !testenv.IsRoot() {
		prefix, null = view.UserPrefix, testimage.Node{Path: "d/null", Type: 'p'} // without devices
	}
	layers := []testimage.Tree{
		{
			{Path: "d/top", Mode: 0o600}, {Path: "d/deleted", Type: 'c'}, {Path: "gone", Type: 'c'}, {Path: "file", Mode: 0o644},
			{Path: "opaque", Type: 'd', Mode: 0o755, Xattrs: map[string]string{prefix + "opaque": "y"}},
			{Path: "opaque/new", Mode: 0o600}, {Path: "link", Type: 'l', Link: "d"},
		},
		{
			{Path: "d/middle", Mode: 0o640}, {Path: "d/deleted", Mode: 0o600}, {Path: "gone/x", Mode: 0o600}, {Path: "file/x", Mode: 0o600},
			{Path: "opaque/old", Mode: 0o600}, {Path: "hidden", Type: 'c'},
		},
		{{Path: "d/top", Mode: 0o644}, null, {Path: "hidden/x", Mode: 0o600}, {Path: "link/x", Mode: 0o600}},
	}
	var dirs []string
	for _, l := range layers {
		dir := t.TempDir()
		if err := l.Write(dir); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	root, err := view.Open(prefix, dirs)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for dir, want := range map[string]string{
		"":       "[d file link opaque] 3",
		"d":      "[middle null top] 3",
		"opaque": "[new] 1",
		"gone":   "[] 0", "file": "[] 0", "hidden": "[] 0", "link": "[] 0", "never": "[] 0",
	} {
		d := root
		if dir != "" {
			if d, err = root.Child(dir); err != nil {
				t.Fatal(err)
			}
			defer d.Close()
		}
		names, err := d.Names()
		var shown []string
		for _, n := range names {
			shown = append(shown, n.Name)
		}
		if got := fmt.Sprint(shown, d.Len()); err != nil || got != want {
			t.Errorf("%q: %s, want %s (%v)", dir, got, want, err)
		}
		for _, n := range names {
			var st unix.Stat_t
			if _, found, err := d.Lookup(n.Name, &st); !found || err != nil {
				t.Errorf("%s/%s: found %v, %v", dir, n.Name, found, err)
			}
		}
	}
	var st unix.Stat_t
	d, _ := root.Child("d")
	defer d.Close()
	for name, mode := range map[string]uint32{"top": 0o600, "middle": 0o640, "deleted": 0, "never": 0} {
		_, found, err := d.Lookup(name, &st)
		if found != (mode != 0) || err != nil || found && st.Mode&0o777 != mode {
			t.Errorf("%s: found %v, mode %o, %v", name, found, st.Mode, err)
		}
	}
}

func TestNoLowers(t *testing.T) {
	root, err := view.Open(view.TrustedPrefix, nil)
	if root != nil || err != nil {
		t.Fatal(root, err)
	}
	var st unix.Stat_t
	if _, found, err := root.Lookup("x", &st); found || err != nil {
		t.Error(found, err)
	}
	if c, err := root.Child("x"); c != nil || err != nil {
		t.Error(c, err)
	}
	root.Close()
}
