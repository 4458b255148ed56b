package layerdiff_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
)

// What a runtime made to mount something on is left out and listed; what the base has, what has content, and what looks
// otherwise stays.
func TestMountTargets(t *testing.T) {
	lower := tempDir(t)
	must(t, testimage.Tree{{Path: "sys", Type: 'd', Mode: 0o700}, {Path: "etc/hostname", Mode: 0o644, Data: "h"}}.Write(lower))
	stack := upper(t, testimage.Tree{
		{Path: "dev", Type: 'd', Mode: 0o755},
		{Path: "etc", Type: 'd', Mode: 0o755},
		{Path: "etc/hostname", Mode: 0o755},
		{Path: "etc/hosts", Mode: 0o755},
		{Path: "etc/other", Mode: 0o755},
		{Path: "etc/resolv.conf", Mode: 0o755, Data: "nameserver"},
		{Path: "proc", Type: 'd', Mode: 0o755},
		{Path: "proc/x", Mode: 0o755},
		{Path: "run", Type: 'd', Mode: 0o700},
		{Path: "run/hosts", Mode: 0o644},
		{Path: "sys", Type: 'd', Mode: 0o755},
	}, lower)
	id := []layerdiff.IDMap{nil, nil}
	if os.Getuid() != 0 {
		id = []layerdiff.IDMap{{{Container: 0, Host: uint32(os.Getuid()), Size: 1}}, {{Container: 0, Host: uint32(os.Getgid()), Size: 1}}}
	}
	o := layerdiff.Options{
		UIDs: id[0], GIDs: id[1],
		MountTargets: []string{"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run", "/run/hosts"},
	}
	var listed []string
	for c, err := range layerdiff.Changes(t.Context(), stack, o) {
		must(t, err)
		listed = append(listed, c.Path)
	}
	want := []string{"/etc", "/etc/hostname", "/etc/other", "/etc/resolv.conf", "/proc", "/proc/x", "/run", "/run/hosts", "/sys"}
	if d := cmp.Diff(want, listed); d != "" {
		t.Errorf("changes: %s", d)
	}
	b, err := layerdiff.Write(t.Context(), io.Discard, stack, o)
	must(t, err)
	var out []string
	for _, skip := range b.LeftOut {
		out = append(out, skip.Path)
	}
	if d := cmp.Diff([]string{"/dev", "/etc/hosts"}, out); d != "" || b.Entries != len(want) {
		t.Errorf("%d members, left out: %s", b.Entries, d)
	}
	dir := tempDir(t)
	staged, err := layerdiff.Stage(t.Context(), dir, nil, stack, o)
	must(t, err)
	if _, err := os.Lstat(filepath.Join(dir, "dev")); !os.IsNotExist(err) || staged.DiffID != b.DiffID {
		t.Errorf("staged another layer: %v", err)
	}
}
