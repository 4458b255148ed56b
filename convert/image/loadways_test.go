package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
)

// packings are the compressions of whole archives.
var packings = []struct {
	name   string
	writer func(io.Writer) (io.WriteCloser, error)
}{
	{"gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }},
	{"zstd", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }},
	{"xz", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }},
}

func packedWhole(t *testing.T, n int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packings[n].writer(&b)
	check(t, err)
	_, err = w.Write(data)
	check(t, err)
	check(t, w.Close())
	return b.Bytes()
}

// archiveKinds make archives of every kind of layers that may be anything.
var archiveKinds = []struct {
	name string
	make func(t *testing.T, tars ...[]byte) []byte
}{
	{"oci-archive", func(t *testing.T, tars ...[]byte) []byte {
		dir := t.TempDir()
		check(t, testimage.NewImage(51, testimage.ImageOptions{Tars: tars}).WriteOCI(dir, "a"))
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		check(t, w.AddFS(os.DirFS(dir)))
		check(t, w.Close())
		return b.Bytes()
	}},
	{"docker-archive", func(t *testing.T, tars ...[]byte) []byte {
		img := testimage.NewImage(51, testimage.ImageOptions{Tars: tars})
		item := dockerItem{Config: "config.json", RepoTags: []string{"a:1"}}
		members := []testimage.Member{textMember("config.json", string(img.Config))}
		for n, l := range tars {
			item.Layers = append(item.Layers, fmt.Sprintf("%d/layer.tar", n))
			members = append(members, textMember(item.Layers[n], string(l)))
		}
		list, err := json.Marshal([]dockerItem{item})
		check(t, err)
		return testimage.PackTar(append(members, textMember("manifest.json", string(list)))...)
	}},
	{"repositories only", func(t *testing.T, tars ...[]byte) []byte {
		var members []testimage.Member
		parent := ""
		for n, l := range tars {
			id := fmt.Sprintf("%064x", n+1)
			doc := fmt.Sprintf(`{"id":%q,"created":"2015-01-01T00:00:00Z","os":"linux"%s}`, id, parent)
			members = append(members, textMember(id+"/json", doc), textMember(id+"/VERSION", "1.0"), textMember(id+"/layer.tar", string(l)))
			parent = fmt.Sprintf(`,"parent":%q`, id)
		}
		return testimage.PackTar(append(members, textMember("repositories", fmt.Sprintf(`{"a":{"1":"%064x"}}`, len(tars))))...)
	}},
}

func textMember(name, text string) testimage.Member {
	return testimage.Member{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}, Content: text}
}

// ways are how an archive comes in: from a file, and as a stream that is a file or a pipe.
var ways = []struct {
	name string
	load func(t *testing.T, c *Converter, path string) ([]Loaded, error)
}{
	{"file", func(t *testing.T, c *Converter, path string) ([]Loaded, error) {
		return c.Load(t.Context(), path, LoadOptions{})
	}},
	{"standard input, a file", func(t *testing.T, c *Converter, path string) ([]Loaded, error) {
		f, err := os.Open(path)
		check(t, err)
		return c.LoadFrom(t.Context(), f, LoadOptions{})
	}},
	{"standard input, a pipe", func(t *testing.T, c *Converter, path string) ([]Loaded, error) {
		data, err := os.ReadFile(path)
		check(t, err)
		return c.LoadFrom(t.Context(), newReader(data), LoadOptions{})
	}},
}

func writeTemp(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	check(t, os.WriteFile(path, data, 0o600))
	return path
}

// TestLoadEveryWay: what is wrong with an archive, or with a layer in it, is told whatever kind it is, however it is compressed and wherever
// it comes from, and the store and the directory for temporary files are what they were.
func TestLoadEveryWay(t *testing.T) {
	r, st := newRefuser(t), newStore(t)
	temp := t.TempDir()
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	check(t, os.WriteFile(canary, []byte("canary"), 0o644))
	img := testimage.NewImage(50, testimage.ImageOptions{Layers: 2})
	good := [][]byte{img.Layers[0].Tar, img.Layers[1].Tar}
	refuse := func(t *testing.T, way int, data []byte, class ...kimg.Class) {
		t.Helper()
		c, path := converter(t, on(r.st)), writeTemp(t, data)
		t.Setenv("TMPDIR", temp)
		_, err := ways[way].load(t, c, path)
		if !slices.Contains(class, kimg.ClassOf(err)) {
			t.Errorf("%s: %v", ways[way].name, err)
		}
		same(t, "the store", r.before, storeFiles(t, r.st))
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
	turn := 0 // every case comes in one of the ways, every way has many cases
	next := func(n int) int { turn++; return turn % n }
	for _, kind := range archiveKinds {
		t.Run(kind.name, func(t *testing.T) {
			plain := kind.make(t, good...)
			for n, p := range packings {
				whole := packedWhole(t, n, plain)
				for way := range ways {
					all, err := ways[way].load(t, converter(t, on(st)), writeTemp(t, whole))
					if err != nil || len(all) != 1 || len(all[0].Instances) != 1 || all[0].Instances[0].Unpacked+all[0].Instances[0].Skipped != 2 {
						t.Errorf("%s, %s: %+v, %v", p.name, ways[way].name, all, err)
					}
				}
				for name, damage := range damages {
					if name == "swap" || name == "empty" {
						continue
					}
					t.Run(p.name+", "+name, func(t *testing.T) {
						refuse(t, next(len(ways)), damage(whole, nil), kimg.ErrIntegrity, kimg.ErrInvalid)
					})
				}
			}
			t.Run("cut", func(t *testing.T) { refuse(t, next(len(ways)), plain[:len(plain)/2/512*512+100], kimg.ErrIntegrity) })
			t.Run("empty", func(t *testing.T) { refuse(t, next(len(ways)), nil, kimg.ErrInvalid) })
			t.Run("twice", func(t *testing.T) { // two members of each name
				refuse(t, next(len(ways)), append(bytes.TrimRight(plain, "\x00"), plain...), kimg.ErrInvalid, kimg.ErrIntegrity)
			})
			t.Run("600 layers", func(t *testing.T) {
				refuse(t, next(len(ways)), kind.make(t, slices.Repeat(good[:1], 600)...), kimg.ErrLimit)
			})
			for _, h := range testimage.HostileTars(canary) {
				if !h.Refuse {
					continue
				}
				t.Run(h.Name, func(t *testing.T) {
					data := kind.make(t, good[0], h.Tar)
					if n := next(len(packings) + 1); n < len(packings) {
						data = packedWhole(t, n, data)
					}
					refuse(t, next(len(ways)), data, kimg.ErrInvalid, kimg.ErrUnsafe, kimg.ErrUnsupported, kimg.ErrLimit, kimg.ErrIntegrity, kimg.ErrNotFound)
				})
			}
		})
	}
	if text, err := os.ReadFile(canary); err != nil || string(text) != "canary" {
		t.Errorf("%s, %v", text, err)
	}
}
