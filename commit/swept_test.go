package commit_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
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
			swept, sweep := sweeper(t, s, tt.most)
			made := func(e commit.Event) {
				if e.Step == commit.StepConfig && e.End.IsZero() { // the layer is made and not recorded
					sweep()
				}
			}
			r, err := commit.Container(t.Context(), s, c.ID, commit.Options{Names: []string{"swept"}, Progress: made})
			if tt.name == "always" {
				if !errors.Is(err, kimg.ErrBusy) || layers(t, s) != before {
					t.Errorf("%v; %d layers, were %d", err, layers(t, s), before)
				}
				return
			}
			if err != nil || *swept != tt.most {
				t.Fatalf("%v after %d", err, *swept)
			}
			exports(t, s, r.ImageID)
		})
	}
}

// TestImportSweptByOthers: what is imported from a file or a directory is read again; a stream cannot be.
func TestImportSweptByOthers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "tree/file", "content")
	tarball := testimage.PackTar(testimage.Member{Header: tar.Header{Name: "file", Mode: 0o644, Size: 7}, Content: "content"})
	write(t, dir, "it.tar", string(tarball))
	sources := map[string]func() io.Reader{
		"file": func() io.Reader {
			f, err := os.Open(filepath.Join(dir, "it.tar"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		},
		"later in a file": func() io.Reader {
			r := bytes.NewReader(append([]byte("before"), tarball...))
			if _, err := r.Seek(6, io.SeekStart); err != nil {
				t.Error(err)
			}
			return r
		},
		"stream":    func() io.Reader { return io.MultiReader(bytes.NewReader(tarball)) },
		"directory": func() io.Reader { return nil },
	}
	for _, tt := range []struct {
		source, when string
		most         int
		busy         bool
	}{
		{"file", "made", 2, false}, {"file", "half made", 1, false}, {"file", "made", 3, true}, {"later in a file", "made", 1, false},
		{"directory", "made", 2, false}, {"stream", "made", 1, true}, {"stream", "half made", 1, true}, {"stream", "made", 0, false},
	} {
		t.Run(fmt.Sprintf("%s, %s, %d times", tt.source, tt.when, tt.most), func(t *testing.T) {
			s := newStore(t)
			swept, sweep := sweeper(t, s, tt.most)
			r := sources[tt.source]()
			if tt.when == "half made" {
				r = &whenRead{r, sweep}
			}
			src := store.TarSource(r)
			if r == nil {
				src = commit.Dir(filepath.Join(dir, "tree"), layerdiff.Options{})
			}
			made, err := commit.Import(t.Context(), s, src, ispec.Platform{OS: "linux", Architecture: "amd64"}, commit.Options{
				Change: func(*docker.Image) error { // the layer is made and not recorded
					if tt.when == "made" {
						sweep()
					}
					return nil
				},
			})
			if tt.busy {
				images, ierr := s.Storage().Images()
				if !errors.Is(err, kimg.ErrBusy) || strings.Contains(err.Error(), "\n") || ierr != nil || len(images) > 0 || layers(t, s) > 0 || *swept != tt.most {
					t.Errorf("%v after %d; %d images, %d layers", err, *swept, len(images), layers(t, s))
				}
				return
			}
			if err != nil || *swept != tt.most {
				t.Fatalf("%v after %d", err, *swept)
			}
			exports(t, s, made.ImageID)
		})
	}
}

// whenRead does something before the first byte is read.
type whenRead struct {
	io.Reader
	do func()
}

func (r *whenRead) Read(p []byte) (int, error) {
	r.do()
	return r.Reader.Read(p)
}

func (r *whenRead) Seek(offset int64, whence int) (int64, error) {
	if s, ok := r.Reader.(io.Seeker); ok {
		return s.Seek(offset, whence)
	}
	return 0, errors.ErrUnsupported
}

// sweeper empties the directory in which layers are made when it is called, some times at most, and counts.
func sweeper(t *testing.T, s *store.Store, most int) (*int, func()) {
	var mu sync.Mutex
	swept := 0
	return &swept, func() {
		mu.Lock()
		defer mu.Unlock()
		if swept == most {
			return
		}
		swept++
		if err := os.RemoveAll(filepath.Join(s.Storage().GraphRoot(), "overlay/staging")); err != nil {
			t.Error(err)
		}
	}
}

// exports checks that an image's layer is whole.
func exports(t *testing.T, s *store.Store, image string) {
	t.Helper()
	img, err := s.Resolve(t.Context(), image, nil)
	if err == nil {
		err = s.ExportLayer(t.Context(), img.TopLayer, io.Discard)
	}
	if err != nil {
		t.Error(err)
	}
}
