package commit_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containers/storage/pkg/idtools"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// The layer of a container with id maps is that of one without, whoever owns the files on disk: also when the maps lie
// inside an ordinary user's namespace.
func TestMappedContainer(t *testing.T) {
	s := newStore(t)
	first := container(t, s, nil)
	edit(t, first, func(root string) {
		write(t, root, "d/old", "x")
		write(t, root, "gone", "x")
		write(t, root, "same", "x")
	})
	base, _ := into(t, s, first, commit.Options{Names: []string{"base"}})
	for _, shift := range []int{0, 20000} {
		o := store.ContainerOptions{}
		if shift > 0 {
			o.UIDMap = []idtools.IDMap{{ContainerID: 0, HostID: shift, Size: 20000}}
			o.GIDMap = o.UIDMap
		}
		c, err := s.NewContainer(t.Context(), base, o)
		if err != nil {
			t.Fatal(err)
		}
		edit(t, c, func(root string) {
			write(t, root, "d", "")
			write(t, root, "d/new", "x")
			write(t, root, "gone", "")
			for path, id := range map[string]int{"d": 0, "d/new": 7} {
				if err := os.Lchown(filepath.Join(root, path), shift+id, shift+id+1); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // copied up, and as it was
				info, err := os.Lstat(filepath.Join(root, "same"))
				if err == nil {
					err = os.Chmod(filepath.Join(root, "same"), info.Mode()^0o111)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		})
		img, _ := into(t, s, c, commit.Options{Remove: true})
		var data bytes.Buffer
		if err := s.ExportLayer(t.Context(), img.TopLayer, &data); err != nil {
			t.Fatal(err)
		}
		var got []string
		for r := tar.NewReader(&data); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(h.Name, " ", h.Uid, ":", h.Gid))
		}
		if want := "[d/ 0:1 d/new 7:8 d/.wh.old 0:0 .wh.gone 0:0]"; fmt.Sprint(got) != want {
			t.Errorf("shift %d: %v, want %s", shift, got, want)
		}
		if problems, err := s.Check(t.Context()); err != nil || len(problems) > 0 {
			t.Errorf("shift %d: %v %v", shift, problems, err)
		}
	}
}
