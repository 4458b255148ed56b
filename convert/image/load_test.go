package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/transfer"
)

// storeFiles are what a store has on disk, but for what every look at it touches.
func storeFiles(t *testing.T, st *store.Store) []testimage.Item {
	t.Helper()
	items := files(t, st.Storage().GraphRoot())
	return slices.DeleteFunc(items, func(i testimage.Item) bool {
		return strings.HasSuffix(i.Path, ".lock") || strings.HasSuffix(i.Path, "layers.json") // written anew, the same
	})
}

// refuser is a store with an image, in which nothing may change.
type refuser struct {
	st     *store.Store
	before []testimage.Item
}

func newRefuser(t *testing.T) *refuser {
	t.Helper()
	r := &refuser{st: newStore(t)}
	dir := t.TempDir()
	check(t, testimage.NewImage(98, testimage.ImageOptions{}).WriteOCI(dir, "there"))
	if _, err := converter(t, on(r.st)).Load(t.Context(), dir, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := converter(t, on(r.st)).Load(t.Context(), t.TempDir(), LoadOptions{}) // directories that stay
	if err == nil {
		t.Error("an empty directory was loaded")
	}
	r.before = storeFiles(t, r.st)
	return r
}

func (r *refuser) load(t *testing.T, path string, o Options, lo LoadOptions) error {
	t.Helper()
	o.Store = on(r.st).Store
	_, err := converter(t, o).Load(t.Context(), path, lo)
	if err == nil {
		t.Fatalf("%s was loaded", path)
	}
	same(t, "the store", r.before, storeFiles(t, r.st))
	return err
}

// TestLoadDamage: whatever happens to a blob, wherever it lies, it is class integrity, and the store is what it was.
func TestLoadDamage(t *testing.T) {
	r, st := newRefuser(t), newStore(t)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, good := range goodImages() {
		write := func(change func(string, []byte) []byte, sizes map[string]int) string {
			dir, err := os.MkdirTemp(temp, "in")
			check(t, err)
			good.write(t, dir, change, sizes)
			_, path, _ := strings.Cut(fmt.Sprintf(good.ref, dir), ":")
			return strings.TrimSuffix(path, ":a")
		}
		refuse := func(what string, change func(string, []byte) []byte, sizes map[string]int) {
			t.Helper()
			path := write(change, sizes)
			if err := r.load(t, path, Options{}, LoadOptions{}); kimg.ClassOf(err) != kimg.ErrIntegrity {
				t.Errorf("%s, %s: %v", good.name, what, err)
			}
			check(t, os.RemoveAll(filepath.Dir(path)))
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("%s, %s: left %v, %v", good.name, what, left, err)
			}
		}
		nothing := func(_ string, b []byte) []byte { return b }
		for _, d := range good.blobs {
			var other []byte
			check(t, os.RemoveAll(filepath.Dir(write(func(digest string, b []byte) []byte {
				if digest != d {
					other = b
				}
				return b
			}, nil))))
			for name, damage := range damages {
				refuse(name+" of "+d, func(digest string, b []byte) []byte {
					if digest == d {
						return damage(b, other)
					}
					return b
				}, nil)
			}
			if good.name != "dir of schema 1" && good.name != "docker-archive" { // they declare no sizes
				for _, by := range []int{1, -1} {
					refuse("resize of "+d, nothing, map[string]int{d: by})
				}
			}
		}
		path := write(nothing, nil)
		if all, err := converter(t, on(st)).Load(t.Context(), path, LoadOptions{}); err != nil || len(all) != 1 {
			t.Errorf("%s: %+v, %v", good.name, all, err)
		}
		check(t, os.RemoveAll(filepath.Dir(path)))
	}
}

// TestLoadHostile: what aims outside, never ends, or says two things, has its class and changes nothing.
func TestLoadHostile(t *testing.T) {
	r := newRefuser(t)
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	check(t, os.WriteFile(canary, []byte("canary"), 0o644))
	img := testimage.NewImage(50, testimage.ImageOptions{Layers: 2})
	layer := img.Layers[0].Digest
	layoutOf := func(img testimage.Image) func(string) {
		return func(dir string) { check(t, img.WriteOCI(dir, "a")) }
	}
	replaced := func(with func(path string) error) func(string) {
		return func(dir string) {
			layoutOf(img)(dir)
			check(t, os.Remove(layoutBlob(dir, layer)))
			check(t, with(layoutBlob(dir, layer)))
		}
	}
	top := func(with func(path string) error) func(string) {
		return func(dir string) {
			layoutOf(img)(dir)
			check(t, os.Remove(dir+"/index.json"))
			check(t, with(dir+"/index.json"))
		}
	}
	manifest := func(change func(m map[string]any)) func(string) {
		one := img
		one.Manifest = edit(t, img.Manifest, change)
		return layoutOf(one)
	}
	with := func(tars ...[]byte) func(string) {
		return layoutOf(testimage.NewImage(51, testimage.ImageOptions{Tars: tars}))
	}
	link := func(path string) error { return os.Symlink(canary, path) }
	fifo := func(path string) error { return unix.Mkfifo(path, 0o600) }
	many := slices.Repeat([][]byte{img.Layers[0].Tar}, 600)
	cases := map[string]struct {
		write func(dir string)
		class []kimg.Class
	}{
		"FIFO for a layer":      {replaced(fifo), []kimg.Class{kimg.ErrUnsafe}},
		"link for a layer":      {replaced(link), []kimg.Class{kimg.ErrUnsafe}},
		"directory for a layer": {replaced(func(p string) error { return os.Mkdir(p, 0o700) }), []kimg.Class{kimg.ErrUnsafe}},
		"FIFO for the index":    {top(fifo), []kimg.Class{kimg.ErrUnsafe}},
		"link for the index":    {top(link), []kimg.Class{kimg.ErrUnsafe}},
		"endless index":         {top(func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte(" "), 5<<20), 0o600) }), []kimg.Class{kimg.ErrLimit}},
		"ambiguous manifest":    {manifest(func(m map[string]any) { m["manifests"] = []any{} }), []kimg.Class{kimg.ErrInvalid}},
		"a layer less":          {manifest(func(m map[string]any) { m["layers"] = m["layers"].([]any)[:1] }), []kimg.Class{kimg.ErrInvalid}},
		"600 layers":            {with(many...), []kimg.Class{kimg.ErrLimit}},
		"URLs and no layer": {func(dir string) {
			manifest(func(m map[string]any) {
				l := m["layers"].([]any)[0].(map[string]any)
				l["mediaType"], l["urls"] = "application/vnd.oci.image.layer.nondistributable.v1.tar", []any{"http://127.0.0.1:1/x"}
			})(dir)
			check(t, os.Remove(layoutBlob(dir, layer)))
		}, []kimg.Class{kimg.ErrUnsupported}},
		"URLs of an ordinary layer": {func(dir string) {
			manifest(func(m map[string]any) {
				m["layers"].([]any)[0].(map[string]any)["urls"] = []any{"http://127.0.0.1:1/x"}
			})(dir)
			check(t, os.Remove(layoutBlob(dir, layer)))
		}, []kimg.Class{kimg.ErrNotFound, kimg.ErrUnsupported}},
	}
	for _, h := range testimage.HostileTars(canary) {
		if h.Refuse {
			cases["layer: "+h.Name] = struct {
				write func(dir string)
				class []kimg.Class
			}{with(img.Layers[0].Tar, h.Tar), []kimg.Class{kimg.ErrInvalid, kimg.ErrUnsafe, kimg.ErrUnsupported, kimg.ErrLimit, kimg.ErrIntegrity, kimg.ErrNotFound}}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.write(dir)
			before := files(t, outside)
			if err := r.load(t, dir, Options{}, LoadOptions{}); !slices.Contains(c.class, kimg.ClassOf(err)) {
				t.Error(err)
			}
			if info, err := os.Lstat(layoutBlob(dir, layer)); strings.HasPrefix(name, "layer: ") || strings.HasPrefix(name, "FIFO") || err == nil && !info.Mode().IsRegular() {
				return
			}
			// The same as an archive; layers are in TestLoadEveryWay.
			file := filepath.Join(outside, "a.tar")
			runTar(t, "-C", dir, "-cf", file, ".")
			if err := r.load(t, file, Options{}, LoadOptions{}); !slices.Contains(c.class, kimg.ClassOf(err)) {
				t.Errorf("as an archive: %v", err)
			}
			check(t, os.Remove(file))
			same(t, "the directory outside", before, files(t, outside))
		})
	}
	for _, h := range testimage.HostileTars(canary) {
		file := filepath.Join(t.TempDir(), "a.tar")
		check(t, os.WriteFile(file, h.Tar, 0o600))
		if err := r.load(t, file, Options{}, LoadOptions{}); kimg.ClassOf(err) == kimg.ErrInternal {
			t.Errorf("archive %s: %v", h.Name, err)
		}
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "canary" {
		t.Errorf("%s, %v", data, err)
	}
	for _, special := range []string{"/dev/zero", "/dev/null"} {
		if err := r.load(t, special, Options{}, LoadOptions{}); kimg.ClassOf(err) != kimg.ErrUnsafe {
			t.Error(err)
		}
	}
	// A signature policy that accepts nothing.
	dir := t.TempDir()
	layoutOf(img)(dir)
	if err := r.load(t, dir, Options{Sys: policyFile(t, "reject")}, LoadOptions{}); kimg.ClassOf(err) != kimg.ErrDenied {
		t.Error(err)
	}
	o := on(r.st)
	o.Sys = policyFile(t, "reject")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.AddFS(os.DirFS(dir)))
	check(t, w.Close())
	if _, err := converter(t, o).LoadFrom(t.Context(), newReader(b.Bytes()), LoadOptions{}); kimg.ClassOf(err) != kimg.ErrDenied {
		t.Error(err)
	}
	same(t, "the store", r.before, storeFiles(t, r.st))
}

// TestLoadStrict: an image that cannot be read keeps nobody away, unless it shall (X20).
func TestLoadStrict(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"localhost/good:1", "localhost/bad:1", "~bad name~"} {
		check(t, testimage.NewImage(uint64(60+i), testimage.ImageOptions{}).WriteOCI(dir, name))
	}
	bad := testimage.NewImage(61, testimage.ImageOptions{})
	for name, damage := range map[string]func(path string) error{
		"missing": os.Remove,
		"flipped": func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("x"), len(bad.Manifest)), 0o600)
		},
	} {
		check(t, damage(layoutBlob(dir, testimage.Digest(bad.Manifest))))
		var log bytes.Buffer
		o := on(newStore(t))
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		all, err := converter(t, o).Load(t.Context(), dir, LoadOptions{})
		if err != nil || len(all) != 2 || all[0].Names[0] != "localhost/good:1" || len(all[1].Names) != 0 || !strings.Contains(log.String(), "bad:1") { // X16
			t.Errorf("%s: %+v, %v\n%s", name, all, err, log.String())
		}
		r := newRefuser(t)
		if err := r.load(t, dir, Options{}, LoadOptions{Strict: true}); kimg.ClassOf(err) != kimg.ErrNotFound && kimg.ClassOf(err) != kimg.ErrIntegrity {
			t.Error(err)
		}
		check(t, os.WriteFile(layoutBlob(dir, testimage.Digest(bad.Manifest)), bad.Manifest, 0o644))
	}
	// An image of an index.
	dir = t.TempDir()
	digests := writeIndex(t, dir, false)
	check(t, os.Remove(layoutBlob(dir, digests[1])))
	st := newStore(t)
	all, err := converter(t, on(st)).Load(t.Context(), dir, LoadOptions{})
	if err != nil || len(all) != 1 || all[0].Instances[1].Err == nil || all[0].Instances[0].ID == "" {
		t.Errorf("%+v, %v", all, err)
	}
	if _, saved := save(t, on(st), SaveOptions{}, "all"); !saved[0].Partial || len(saved[0].Images) != 1 {
		t.Errorf("%+v", saved)
	}
	if err := newRefuser(t).load(t, dir, Options{}, LoadOptions{Strict: true}); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Error(err)
	}
}

// TestLoadOtherSystem: an image for another system is kept as it is, and not unpacked; the index leaves the store as it came, unless the
// image has more than a list may keep.
func TestLoadOtherSystem(t *testing.T) {
	foreign := map[string]any{ // what cannot be had
		"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": testimage.Digest([]byte("base")), "size": 4 << 30, "urls": []any{"https://example.com/base"},
	}
	huge := map[string]any{"mediaType": ispec.MediaTypeImageLayer, "digest": testimage.Digest([]byte("huge")), "size": maxKept}
	for _, tt := range []struct {
		name   string
		first  map[string]any // its first layer is this instead
		remove bool           // or is not there
		whole  bool
	}{{"whole", nil, false, true}, {"foreign", foreign, false, true}, {"huge", huge, false, false}, {"missing", nil, true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var entries []any
			for i, system := range []string{"linux", "windows"} {
				img := testimage.NewImage(uint64(70+i), testimage.ImageOptions{Layers: 2, Change: func(c map[string]any) { c["os"], c["architecture"] = system, runtime.GOARCH }})
				if i == 1 && tt.first != nil {
					img.Manifest = edit(t, img.Manifest, func(m map[string]any) { m["layers"].([]any)[0] = tt.first })
				}
				check(t, img.WriteOCI(dir, system))
				if i == 1 && (tt.remove || tt.first != nil) {
					check(t, os.Remove(layoutBlob(dir, img.Layers[0].Digest)))
				}
				entries = append(entries, map[string]any{
					"mediaType": img.ManifestType, "digest": testimage.Digest(img.Manifest), "size": len(img.Manifest), "platform": map[string]string{"os": system, "architecture": runtime.GOARCH},
				})
			}
			index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ispec.MediaTypeImageIndex, "manifests": entries})
			check(t, err)
			check(t, os.WriteFile(layoutBlob(dir, testimage.Digest(index)), index, 0o644))
			check(t, os.WriteFile(dir+"/index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"all"}}]}`, ispec.MediaTypeImageIndex, testimage.Digest(index), len(index)), 0o644))
			st := newStore(t)
			all, err := converter(t, on(st)).Load(t.Context(), dir, LoadOptions{})
			if err != nil || len(all) != 1 || all[0].Instances[1].Data == tt.remove || (all[0].Instances[1].Err != nil) != tt.remove || all[0].Instances[1].Platform != "windows/"+runtime.GOARCH {
				t.Fatalf("%+v, %v", all, err)
			}
			if layers, err := st.Storage().Layers(); err != nil || len(layers) != 2 {
				t.Errorf("%d layers, %v", len(layers), err)
			}
			if tt.remove {
				check(t, errAs(kimg.ErrNotFound, func() error {
					_, err := converter(t, on(newStore(t))).Load(t.Context(), dir, LoadOptions{Strict: true})
					return err
				}))
			}
			data, saved := save(t, on(st), SaveOptions{NonDistributable: true}, "all")
			if s := saved[0]; s.Partial == tt.whole || (string(s.NewDigest) == testimage.Digest(index)) != tt.whole {
				t.Errorf("%+v", s)
			}
			if !tt.whole {
				return
			}
			two := newStore(t)
			load(t, on(two), LoadOptions{Strict: true}, data)
			if again, _ := save(t, on(two), SaveOptions{}, "all"); !bytes.Equal(again, data) {
				t.Error("another store gives other bytes")
			}
			dst := "oci:" + t.TempDir() + ":x"
			if r := converter(t, Options{Store: on(two).Store, Keep: true, PreserveDigests: true}).must(t, "all", dst); string(r.NewDigest) != testimage.Digest(index) {
				t.Errorf("%+v", r)
			}
			if v := validate(t, dst, false); !v.Valid() || len(v.Images) != 2 {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestLoadBareBlob: an index may name what is not even a manifest.
func TestLoadBareBlob(t *testing.T) {
	dir, text := t.TempDir(), []byte("any text")
	img := testimage.NewImage(90, testimage.ImageOptions{Change: func(c map[string]any) { c["architecture"] = runtime.GOARCH }})
	check(t, img.WriteOCI(dir, "x"))
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}},{"mediaType":"text/plain","digest":%q,"size":%d}]}`,
		ispec.MediaTypeImageIndex, img.ManifestType, testimage.Digest(img.Manifest), len(img.Manifest), runtime.GOARCH, testimage.Digest(text), len(text))
	for _, data := range [][]byte{index, text} {
		check(t, os.WriteFile(layoutBlob(dir, testimage.Digest(data)), data, 0o644))
	}
	check(t, os.WriteFile(dir+"/index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"a"}}]}`, ispec.MediaTypeImageIndex, testimage.Digest(index), len(index)), 0o644))
	st := newStore(t)
	_, err := converter(t, on(st)).Load(t.Context(), dir, LoadOptions{})
	check(t, err)
	data, saved := save(t, on(st), SaveOptions{}, "a")
	if _, content := membersOf(t, data); saved[0].Partial || string(saved[0].NewDigest) != testimage.Digest(index) || string(content["blobs/sha256/"+testimage.Digest(text)[7:]]) != string(text) {
		t.Errorf("%+v", saved)
	}
}

// TestLoadTells: progress of layers, and a stream that ends with the context (X21, X22).
func TestLoadTells(t *testing.T) {
	dir := t.TempDir()
	check(t, testimage.NewImage(80, testimage.ImageOptions{Layers: 3}).WriteOCI(dir, "localhost/a:1"))
	ended := 0
	o := on(newStore(t))
	o.Progress = func(image string, e transfer.Event) {
		if image != "localhost/a:1" {
			t.Error(image)
		}
		if !e.End.IsZero() {
			ended++
		}
	}
	_, err := converter(t, o).Load(t.Context(), dir, LoadOptions{})
	if err != nil || ended != 3 {
		t.Errorf("%d layers, %v", ended, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := converter(t, on(newStore(t))).LoadFrom(ctx, io.NopCloser(strings.NewReader("x")), LoadOptions{}); kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Error(err)
	}
}
