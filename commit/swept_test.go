package commit_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
)

// TestSweptByOthers: podman 4 empties the directory in which layers are made whenever one of its commands ends. A commit makes its
// layer again; one that is disturbed each time fails, and leaves nothing.
func TestSweptByOthers(t *testing.T) {
	for _, tt := range []struct {
		name string
		most int
	}{{"once", 1}, {"twice", 2}, {"always", 1 << 30}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			c := container(t, s, nil)
			edit(t, c, func(root string) { write(t, root, "file", "content") })
			before := layers(t, s)
			var mu sync.Mutex
			swept := 0
			sweep := func(e commit.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Step != commit.StepConfig || !e.End.IsZero() || swept == tt.most { // the layer is made and not recorded
					return
				}
				swept++
				if err := os.RemoveAll(filepath.Join(s.Storage().GraphRoot(), "overlay/staging")); err != nil {
					t.Error(err)
				}
			}
			r, err := commit.Container(t.Context(), s, c.ID, commit.Options{Names: []string{"swept"}, Progress: sweep})
			if tt.name == "always" {
				if !errors.Is(err, kimg.ErrBusy) || layers(t, s) != before {
					t.Errorf("%v; %d layers, were %d", err, layers(t, s), before)
				}
				return
			}
			if err != nil || swept != tt.most {
				t.Fatalf("%v after %d", err, swept)
			}
			img, err := s.Resolve(t.Context(), r.ImageID, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.ExportLayer(t.Context(), img.TopLayer, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
}
