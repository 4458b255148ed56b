//go:build linux

package testimage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

// A seed names one tree, and a description of a tree misses nothing that makes two trees different.
func TestRandomTreeIsReproducible(t *testing.T) {
	testenv.Root(t)
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := testimage.Random(3, 80).Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	left, err := testimage.Snapshot(a)
	if err != nil {
		t.Fatal(err)
	}
	right, err := testimage.Snapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := testimage.Diff(left, right); len(d) > 0 || len(left) != 80 {
		t.Fatalf("%d items, %v", len(left), d)
	}
	types := map[byte]int{}
	for _, i := range left {
		types[i.Type]++
	}
	if len(types) < 5 {
		t.Errorf("types: %v", types)
	}
	for _, i := range left {
		if i.Type == 'f' && i.Size > 0 {
			if err := os.WriteFile(filepath.Join(b, i.Path), []byte("x"), 0); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if right, err = testimage.Snapshot(b); err != nil {
		t.Fatal(err)
	}
	if d := testimage.Diff(left, right); len(d) < 2 {
		t.Errorf("a changed file: %s", fmt.Sprint(d))
	}
}
