package commit_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff/rootfs"
	"github.com/kimg/kimg/store"
)

// tree is the proof of an image's tree, from its layers as they are exported.
func tree(t *testing.T, s *store.Store, img *store.Image) rootfs.Proof {
	t.Helper()
	all, err := img.Layers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var open []rootfs.Opener
	for _, l := range all {
		open = append(open, func(ctx context.Context) (io.ReadCloser, error) {
			return streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error { return s.ExportLayer(ctx, l.ID, w) }), nil
		})
	}
	p, err := rootfs.Layers(t.Context(), open, rootfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSquash(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) {
		for _, name := range []string{"etc/one", "etc/two", "gone/x", "replaced/old", "moved/deep/file"} {
			write(t, root, name, name)
		}
		if err := os.Link(filepath.Join(root, "etc/one"), filepath.Join(root, "linked")); err != nil {
			t.Fatal(err)
		}
	})
	base, _ := into(t, s, c, commit.Options{Names: []string{"base"}})
	c = container(t, s, base)
	edit(t, c, func(root string) {
		write(t, root, "etc/two", "")
		write(t, root, "gone", "")
		write(t, root, "replaced", "")
		write(t, root, "replaced/new", "new")
		write(t, root, "added", "1")
		if err := os.Chmod(filepath.Join(root, "linked"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	layered, _ := into(t, s, c, commit.Options{})
	img, r := into(t, s, c, commit.Options{Squash: true, Remove: true, CreatedBy: "squashed"})
	if len(r.DiffIDs) != 1 || !r.Removed || img.ID == layered.ID {
		t.Fatalf("%+v", r)
	}
	if a, b := tree(t, s, layered), tree(t, s, img); a.Digest != b.Digest || a.Entries == 0 {
		t.Errorf("layered %+v, squashed %+v", a, b)
	}
	var config ispec.Image
	data, err := img.Config(t.Context())
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil || len(config.History) != 1 || config.History[0].CreatedBy != "squashed" || len(config.RootFS.DiffIDs) != 1 {
		t.Errorf("config %s, %v", data, err)
	}
	m, _, err := img.Manifest(t.Context())
	if err != nil || bytes.Contains(m, []byte(ispec.AnnotationBaseImageDigest)) {
		t.Errorf("manifest %s, %v", m, err)
	}
}

func TestRewriteTimestamp(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	old := day.Add(-time.Hour)
	edit(t, c, func(root string) {
		write(t, root, "dir/new", "x")
		write(t, root, "dir/old", "x")
		err := os.Symlink("x", filepath.Join(root, "dir/link"))
		if err == nil {
			err = os.Chtimes(filepath.Join(root, "dir/old"), old, old)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if _, err := commit.Container(t.Context(), s, c.ID, commit.Options{RewriteTimestamp: true}); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error("without a time:", err)
	}
	img, r := into(t, s, c, commit.Options{RewriteTimestamp: true})
	var b bytes.Buffer
	if err := s.ExportLayer(t.Context(), img.TopLayer, &b); err != nil {
		t.Fatal(err)
	}
	n := 0
	for tr := tar.NewReader(&b); ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		want := day
		if h.Name == "dir/old" {
			want = old
		}
		if !h.ModTime.Equal(want) {
			t.Errorf("%s has %v", h.Name, h.ModTime)
		}
	}
	if n != 4 {
		t.Errorf("%d members", n)
	}
	edit(t, container(t, s, img), func(root string) {
		for name, want := range map[string]time.Time{"dir": day, "dir/new": day, "dir/old": old, "dir/link": day} {
			if info, err := os.Lstat(filepath.Join(root, name)); err != nil || !info.ModTime().Equal(want) {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
	})
	// The files are those of the container only when their times are.
	if _, again := into(t, s, c, commit.Options{RewriteTimestamp: true, Remove: true}); again.ImageID != r.ImageID || !again.LayerExisted {
		t.Errorf("%+v", again)
	}
}
