package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	libcompression "github.com/containers/image/v5/pkg/compression"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/faults"
)

// putChunked puts an image of one zstd:chunked layer into a registry: 200 files of 8 KiB and a FIFO, of which one file is as seed says.
func putChunked(t *testing.T, s *faults.Registry, tag string, seed uint64, lie bool) (plain []byte, blob int) {
	t.Helper()
	var layer, packed bytes.Buffer
	w := tar.NewWriter(&layer)
	then := time.Unix(1700000000, 0)
	check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o750, ModTime: then}))
	for i := range 200 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		if i == 100 {
			r = rand.New(rand.NewPCG(2, seed))
		}
		data := make([]byte, 8<<10)
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/%d", i), Mode: 0o644, Size: int64(len(data)), ModTime: then}))
		_, err := w.Write(data)
		check(t, err)
	}
	check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeFifo, Name: "d/fifo", Mode: 0o600, ModTime: then}))
	check(t, w.Close())
	toc := map[string]string{}
	z, err := libcompression.CompressStreamWithMetadata(&packed, toc, libcompression.ZstdChunked, nil)
	check(t, err)
	_, err = z.Write(layer.Bytes())
	check(t, err)
	check(t, z.Close())
	if lie {
		toc[tocOf] = digest.FromString("another table").String()
	}
	config, err := json.Marshal(ispec.Image{Platform: *thisMachine(), RootFS: ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer.Bytes())}}})
	check(t, err)
	manifest, _, err := convert.Manifest(convert.OCI, ispec.Descriptor{Digest: digest.FromBytes(config), Size: int64(len(config))},
		[]convert.Layer{{Digest: digest.FromBytes(packed.Bytes()), Size: int64(packed.Len()), MediaType: ispec.MediaTypeImageLayerZstd, Annotations: toc}}, nil)
	check(t, err)
	s.PutBlob("app", config)
	s.PutBlob("app", packed.Bytes())
	s.PutManifest("app", tag, manifest, ispec.MediaTypeImageManifest)
	return layer.Bytes(), packed.Len()
}

// bent changes the answers to requests for parts of blobs, or to all requests for blobs, and counts what it sends of them.
type bent struct {
	http.Handler
	mu    sync.Mutex
	parts int // requests
	sent  int // bytes
	bend  func(parts int, r *http.Request, w http.ResponseWriter, answer *httptest.ResponseRecorder) bool
}

func (b *bent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
		b.Handler.ServeHTTP(w, r)
		return
	}
	b.mu.Lock()
	if r.Header.Get("Range") != "" {
		b.parts++
	}
	parts := b.parts
	b.mu.Unlock()
	answer := httptest.NewRecorder()
	if b.bend == nil || !b.bend(parts, r, w, answer) {
		b.Handler.ServeHTTP(answer, r)
	}
	b.mu.Lock()
	b.sent += answer.Body.Len()
	b.mu.Unlock()
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// A layer of zstd:chunked is put together of files that the store has and of parts of the blob. Whatever is wrong with those, the layer
// is right, or nothing is left.
func TestPartialPull(t *testing.T) {
	isPart := func(r *http.Request) bool { return r.Header.Get("Range") != "" }
	var all *faults.Registry
	flip := func(answer *httptest.ResponseRecorder, r *http.Request) bool {
		inner := httptest.NewRecorder()
		all.ServeHTTP(inner, r)
		maps.Copy(answer.Header(), inner.Header())
		answer.Code = inner.Code
		data := inner.Body.Bytes()
		for i := len(data) / 4; i < len(data); i += 64 {
			data[i] ^= 1
		}
		_, _ = answer.Body.Write(data)
		return true
	}
	for _, c := range []struct {
		name  string
		lie   bool
		parts bool // most of it is not fetched
		want  kimg.Class
		bend  func(parts int, r *http.Request, w http.ResponseWriter, answer *httptest.ResponseRecorder) bool
	}{
		{"well", false, true, "", nil},
		{"no ranges", false, false, "", func(_ int, r *http.Request, _ http.ResponseWriter, _ *httptest.ResponseRecorder) bool {
			r.Header.Del("Range")
			return false
		}},
		{"another table", true, false, "", nil},
		{"table flipped", false, false, "", func(n int, r *http.Request, _ http.ResponseWriter, a *httptest.ResponseRecorder) bool {
			return isPart(r) && n == 2 && flip(a, r)
		}},
		{"parts flipped", false, false, "", func(n int, r *http.Request, _ http.ResponseWriter, a *httptest.ResponseRecorder) bool {
			return isPart(r) && n > 2 && flip(a, r)
		}},
		{"cut once", false, true, "", func(n int, r *http.Request, w http.ResponseWriter, _ *httptest.ResponseRecorder) bool {
			if isPart(r) && n == 3 {
				faults.Cut(w, r, make([]byte, 1<<10))
			}
			return false
		}},
		{"status 503 once", false, true, "", func(n int, r *http.Request, w http.ResponseWriter, a *httptest.ResponseRecorder) bool {
			if isPart(r) && n == 3 {
				a.Code = http.StatusServiceUnavailable
				return true
			}
			return false
		}},
		{"status 503 for ever", false, false, "", func(n int, r *http.Request, w http.ResponseWriter, a *httptest.ResponseRecorder) bool {
			if isPart(r) && n > 2 {
				a.Code = http.StatusServiceUnavailable
				return true
			}
			return false
		}},
		{"refused", false, false, "", func(n int, r *http.Request, w http.ResponseWriter, a *httptest.ResponseRecorder) bool {
			if isPart(r) && n > 1 {
				a.Code = http.StatusBadRequest
				return true
			}
			return false
		}},
		{"everything flipped", false, false, kimg.ErrIntegrity, func(_ int, r *http.Request, _ http.ResponseWriter, a *httptest.ResponseRecorder) bool {
			return (isPart(r) || all.Manifest("app", "2") != nil && strings.Contains(r.URL.Path, layerOf(all))) && flip(a, r)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			all = &faults.Registry{}
			putChunked(t, all, "1", 1, false)
			want, size := putChunked(t, all, "2", 2, c.lie)
			server := &bent{Handler: all}
			h := httptest.NewServer(server)
			t.Cleanup(h.Close)
			dir, err := os.MkdirTemp("/dev/shm", "kimg-parts-")
			check(t, err)
			st, err := storage.GetStore(storage.StoreOptions{GraphRoot: dir + "/root", RunRoot: dir + "/run", GraphDriverName: "overlay",
				PullOptions: map[string]string{"enable_partial_images": "true"}})
			check(t, err)
			t.Cleanup(func() {
				_, err := st.Shutdown(true)
				check(t, err)
				check(t, os.RemoveAll(dir))
			})
			sys := policyFile(t, "insecureAcceptAnything")
			sys.DockerInsecureSkipTLSVerify, sys.SystemRegistriesConfPath, sys.RegistriesDirPath = types.OptionalBoolTrue, "/dev/null", "/nonexistent"
			into := converter(t, Options{Keep: true, Sys: sys, Retries: 1, Store: func() (*store.Store, error) { return store.Wrap(st), nil }})
			from := "docker://" + strings.TrimPrefix(h.URL, "http://") + "/app:"
			into.must(t, from+"1", "containers-storage:localhost/a:1")
			left := func() string {
				layers, err := st.Layers()
				check(t, err)
				images, err := st.Images()
				check(t, err)
				staged, err := filepath.Glob(dir + "/root/overlay/staging/*")
				check(t, err)
				return fmt.Sprint(len(layers), len(images), staged)
			}
			before := left()
			server.mu.Lock()
			server.parts, server.sent, server.bend = 0, 0, c.bend
			server.mu.Unlock()
			r, err := into.try(t, from+"2", "containers-storage:localhost/a:2")
			if kimg.ClassOf(err) != c.want || c.want != "" && left() != before {
				t.Fatalf("%v; %s was %s", err, left(), before)
			}
			if c.want != "" {
				return
			}
			if server.sent*3 < size != c.parts {
				t.Errorf("%d bytes were fetched of %d", server.sent, size)
			}
			img, err := st.Image(r.ImageID)
			check(t, err)
			var got bytes.Buffer
			check(t, store.Wrap(st).ExportLayer(t.Context(), img.TopLayer, &got))
			if !bytes.Equal(got.Bytes(), want) {
				t.Error("the layer is another")
			}
			if info, err := os.Lstat(dir + "/root/overlay/" + img.TopLayer + "/diff/d/fifo"); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
				t.Errorf("the FIFO: %v", err)
			}
			if info, err := os.Stat(dir + "/root/overlay/" + img.TopLayer + "/diff/d"); err != nil || info.ModTime().Unix() != 1700000000 {
				t.Errorf("the directory: %v %v", info.ModTime(), err)
			}
		})
	}
}

// layerOf is the digest of the layer of app:2.
func layerOf(s *faults.Registry) string {
	var m ispec.Manifest
	if json.Unmarshal(s.Manifest("app", "2"), &m) != nil || len(m.Layers) != 1 {
		return "none"
	}
	return m.Layers[0].Digest.String()
}
