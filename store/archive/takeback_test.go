package archive

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
)

// An archive goes again until it is closed, unless somebody has put another file in its place.
func TestTakeBack(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.tar")
			written := func() *Destination {
				d, err := form.create(t.Context(), path, Options{})
				must(t, err)
				must(t, write(t.Context(), d, testimage.NewImage(1, testimage.ImageOptions{Layers: 1, Docker: true})))
				return d
			}
			d := written()
			must(t, d.TakeBack(t.Context()))
			must(t, d.Close())
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
				t.Fatalf("left behind: %v, %v", left, err)
			}
			d = written()
			defer d.Close()
			other := filepath.Join(filepath.Dir(path), "other")
			must(t, os.WriteFile(other, []byte("other"), 0o644))
			must(t, os.Rename(other, path))
			if err := d.TakeBack(t.Context()); kimg.ClassOf(err) != kimg.ErrBusy {
				t.Errorf("another file: %v", err)
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != "other" {
				t.Errorf("now %q, %v", text, err)
			}
		})
	}
}
