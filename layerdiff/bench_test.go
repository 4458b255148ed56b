package layerdiff_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// benchTree makes one of the two trees that are measured, in memory where the machine has a directory for that.
func benchTree(b *testing.B, name string) view.Stack {
	b.Helper()
	dir := benchDir(b)
	tree := testimage.Tree{}
	switch name {
	case "large":
		for i := range 8 {
			tree = append(tree, testimage.Node{Path: fmt.Sprintf("file%d", i), Mode: 0o644, Fill: 128 << 20})
		}
	case "small":
		for i := range 20000 {
			tree = append(tree, testimage.Node{Path: fmt.Sprintf("dir%03d/file%05d", i/100, i), Mode: 0o644, Fill: 1024 + int64(i*7919%7168)})
		}
	}
	if err := tree.Write(dir); err != nil {
		b.Fatal(err)
	}
	return view.Stack{Upper: dir}
}

func benchDir(b *testing.B) string {
	b.Helper()
	base := os.Getenv("KIMG_BENCH_DIR")
	if base == "" {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "kimg-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// BenchmarkLayer compares hashing and staging with the pipe of tar, openssl and tar that does the same work.
func BenchmarkLayer(b *testing.B) {
	for _, name := range []string{"large", "small"} {
		b.Run(name, func(b *testing.B) {
			stack := benchTree(b, name)
			ctx := context.Background()
			b.Run("floor", func(b *testing.B) {
				for b.Loop() {
					dir := filepath.Join(benchDir(b), "new")
					script := `mkdir "$2"; tar -C "$1" --xattrs -cf - . | tee >(openssl dgst -sha256 >/dev/null) | tar --xattrs -xf - -C "$2"; wait`
					if out, err := exec.Command("bash", "-c", script, "floor", stack.Upper, dir).CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
					b.StopTimer()
					_ = os.RemoveAll(dir)
					b.StartTimer()
				}
			})
			stage := func(o layerdiff.Options) func(b *testing.B) {
				return func(b *testing.B) {
					var size int64
					for b.Loop() {
						dir := benchDir(b)
						blob, err := layerdiff.Stage(ctx, dir, io.Discard, stack, o)
						if err != nil {
							b.Fatal(err)
						}
						size = blob.Size
						b.StopTimer()
						_ = os.RemoveAll(dir)
						b.StartTimer()
					}
					b.SetBytes(size)
				}
			}
			b.Run("stage", stage(layerdiff.Options{}))
			b.Run("links", stage(layerdiff.Options{Links: true}))
			b.Run("hash", func(b *testing.B) {
				for b.Loop() {
					if _, err := layerdiff.Write(ctx, io.Discard, stack, layerdiff.Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
