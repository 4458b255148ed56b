package store_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/store"
)

// TestSparseLayers: files with holes, as GNU tar packs them in its oldest form and its newest, become files with the same content, and the
// tar comes back. The library, which unpacks for vfs, would lose them: refused, nothing is left.
func TestSparseLayers(t *testing.T) {
	testenv.Need(t, "tar")
	content := make([]byte, 3<<20)
	copy(content[1<<20:], "in the middle")
	dir := t.TempDir()
	path := filepath.Join(dir, "holes")
	f, err := os.Create(path)
	must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 1<<20)
	must(t, err)
	must(t, f.Truncate(int64(len(content))))
	must(t, f.Close())
	for _, form := range []string{"--format=gnu", "--format=posix --sparse-version=1.0"} {
		packed, err := exec.Command("tar", append(strings.Fields(form), "--sparse", "-C", dir, "-c", "holes")...).Output()
		must(t, err)
		if len(packed) >= len(content) {
			t.Fatal("tar has found no holes")
		}
		for _, driver := range []string{"", "vfs"} {
			t.Run(form+driver, func(t *testing.T) {
				ts := newStoreOf(t, driver)
				before := ts.inventory(t)
				l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(packed)))
				if driver == "vfs" {
					if kimg.ClassOf(err) != kimg.ErrUnsupported || ts.inventory(t) != before {
						t.Errorf("%v\n%s", err, diff(before, ts.inventory(t)))
					}
					return
				}
				must(t, err)
				if got, err := os.ReadFile(filepath.Join(ts.root, "overlay", l.ID, "diff", "holes")); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes of other content, %v", len(got), err)
				}
				var out bytes.Buffer
				if err := ts.ExportLayer(t.Context(), l.ID, &out); err != nil || !bytes.Equal(out.Bytes(), packed) {
					t.Errorf("%d bytes came back of %d, %v", out.Len(), len(packed), err)
				}
			})
		}
	}
}
