package layerdiff

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff/view"
)

// Directories whose entries are still under way stay open, but never more of them than allowed, and the layer is the
// same for it.
func TestFewFileDescriptors(t *testing.T) {
	var tree testimage.Tree
	for i := range 600 {
		tree = append(tree, testimage.Node{Path: fmt.Sprintf("%c/%d/%d/f", 'a'+rune(i%3), i%20, i), Mode: 0o644, Data: "x"})
	}
	lower, upper, dir := t.TempDir(), t.TempDir(), t.TempDir()
	if err := tree[:300].Write(lower); err != nil {
		t.Fatal(err)
	}
	if err := tree.Write(upper); err != nil {
		t.Fatal(err)
	}
	stack := view.Stack{Upper: upper, Lowers: []string{lower}}
	want, err := Write(t.Context(), io.Discard, stack, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStager(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	most := 0
	x := newRun(context.Background(), nil, nil, stack, Options{Progress: func(int64) {
		if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
			most = max(most, len(fds))
		}
	}})
	x.maxOpen = 30
	got, err := x.do(stack, s)
	if err != nil || got.DiffID != want.DiffID {
		t.Errorf("%+v, want %+v (%v)", got, want, err)
	}
	if most > 100 {
		t.Errorf("%d files open at once", most)
	}
	if n := x.tree.open.Load(); n != 0 {
		t.Errorf("%d descriptors are still counted", n)
	}
}
