package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

// TestHostileTars unpacks tars that aim at a file outside of the store. Whatever the store makes of them, that file and its
// directory stay as they are, and a tar that no reader may accept leaves nothing.
func TestHostileTars(t *testing.T) {
	ts := newStore(t)
	canary := filepath.Join(t.TempDir(), "canary")
	write(t, canary, "alive")
	before, err := os.Stat(canary)
	must(t, err)
	for _, h := range testimage.HostileTars(canary) {
		t.Run(h.Name, func(t *testing.T) {
			l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(h.Tar)))
			switch {
			case err == nil && h.Refuse:
				t.Error("accepted")
			case err != nil && kimg.ClassOf(err) == kimg.ErrInternal:
				t.Errorf("class internal: %v", err)
			case err == nil && l != nil:
				if err := ts.Storage().DeleteLayer(l.ID); err != nil {
					t.Errorf("the layer cannot be removed: %v", err)
				}
			}
			content, err := os.ReadFile(canary)
			must(t, err)
			after, err := os.Lstat(canary)
			must(t, err)
			if string(content) != "alive" || after.Mode() != before.Mode() || !os.SameFile(before, after) {
				t.Fatalf("the file outside is %v with %q", after.Mode(), content)
			}
			if names, err := os.ReadDir(filepath.Dir(canary)); err != nil || len(names) != 1 {
				t.Fatalf("new neighbours: %v %v", names, err)
			}
		})
	}
}
