package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/archive"
)

// on are options for a store.
func on(st *store.Store) Options {
	return Options{Store: func() (*store.Store, error) { return st, nil }}
}

func keeping(st *store.Store, blobs bool) Options {
	o := on(st)
	o.KeepBlobs = blobs
	return o
}

func save(t *testing.T, o Options, so SaveOptions, refs ...string) ([]byte, []Saved) {
	t.Helper()
	var b bytes.Buffer
	all, err := converter(t, o).Save(t.Context(), refs, &b, so)
	check(t, err)
	return b.Bytes(), all
}

func load(t *testing.T, o Options, lo LoadOptions, data []byte) []Loaded {
	t.Helper()
	all, err := converter(t, o).LoadFrom(t.Context(), newReader(data), lo)
	check(t, err)
	return all
}

// members reads a tar.
func membersOf(t *testing.T, data []byte) (names []string, content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names, content
		}
		check(t, err)
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: %v, owner %d %s", h.Name, h.ModTime, h.Uid, h.Uname)
		}
		names = append(names, h.Name)
		content[h.Name], err = io.ReadAll(r)
		check(t, err)
	}
}

// item is what manifest.json has.
type dockerItem struct {
	Config           string
	RepoTags, Layers []string
}

// TestSaveAndLoadIndex: an index with an attestation goes through load, save, load and save, and is the same at the end when its blobs
// are kept (X2, X3, X5, X9, X13, X15, X18).
func TestSaveAndLoadIndex(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", false)
	index, err := os.ReadFile(dir + "/in/index.json")
	check(t, err)
	var top ispec.Index
	check(t, json.Unmarshal(index, &top))
	for _, keep := range []bool{true, false} {
		one, two := newStore(t), newStore(t)
		loaded, err := converter(t, keeping(one, keep)).Load(t.Context(), dir+"/in", LoadOptions{})
		check(t, err)
		if l := loaded[0]; !l.IsIndex || len(loaded) != 1 || l.Digest != top.Manifests[0].Digest || !slices.Equal(l.Names, []string{"localhost/all:latest"}) || len(l.Instances) != 3 ||
			l.Instances[0].ID == "" || l.Instances[1].Platform != "linux/arm64" || !l.Instances[2].Data || l.Instances[2].ID != "" || l.Instances[0].Unpacked != 2 {
			t.Errorf("%+v", loaded)
		}
		data, saved := save(t, on(one), SaveOptions{}, "all")
		if s := saved[0]; s.Partial || len(s.Images) != 2 || (s.NewDigest == top.Manifests[0].Digest) != keep {
			t.Errorf("keep %v: %+v", keep, saved)
		}
		if !keep {
			refuseSave(t, on(one), SaveOptions{PreserveDigests: true}, "all", "--keep-blobs")
		} else if same, _ := save(t, on(one), SaveOptions{PreserveDigests: true}, "all"); !bytes.Equal(same, data) {
			t.Error("other bytes with PreserveDigests")
		}
		refuseSave(t, on(one), SaveOptions{Form: archive.Docker, PreserveDigests: true}, "all", "")
		names, content := membersOf(t, data)
		if !slices.IsSorted(names) || !slices.Contains(names, "oci-layout") || slices.Contains(names, "repositories") {
			t.Errorf("%v", names)
		}
		var items []dockerItem
		check(t, json.Unmarshal(content["manifest.json"], &items))
		if len(items) != 1 || !slices.Equal(items[0].RepoTags, []string{"localhost/all:latest"}) || len(items[0].Layers) != 2 || content[items[0].Layers[1]] == nil {
			t.Errorf("%+v", items)
		}
		var config struct{ Architecture string }
		check(t, json.Unmarshal(content[items[0].Config], &config))
		if want := runtime.GOARCH; want == "amd64" || want == "arm64" {
			if config.Architecture != want {
				t.Errorf("manifest.json names the image for %s", config.Architecture)
			}
		}
		load(t, keeping(two, keep), LoadOptions{}, data)
		if again, _ := save(t, on(two), SaveOptions{}, "all"); !bytes.Equal(again, data) {
			t.Error("another store gives other bytes")
		}
		back := converter(t, on(two)).must(t, "all", "oci:"+t.TempDir()+":x")
		if (back.NewDigest == top.Manifests[0].Digest) != keep || len(back.Images) != 2 {
			t.Errorf("keep %v: %+v", keep, back)
		}
		// X19: what is there is not unpacked.
		if l := load(t, on(two), LoadOptions{}, data)[0]; l.Instances[0].Unpacked != 0 || l.Instances[0].Skipped != 2 {
			t.Errorf("%+v", l)
		}
		// X15: one platform of it.
		three := on(newStore(t))
		three.Platform = &ispec.Platform{OS: "linux", Architecture: "arm64"}
		if l := load(t, three, LoadOptions{}, data); len(l) != 1 || l[0].IsIndex || l[0].Instances[0].Platform != "linux/arm64" {
			t.Errorf("%+v", l)
		}
		three.Platform.Architecture = "s390x"
		if _, err := converter(t, three).LoadFrom(t.Context(), newReader(data), LoadOptions{}); kimg.ClassOf(err) != kimg.ErrNotFound {
			t.Error(err)
		}
		o := on(one)
		o.Platform = &ispec.Platform{OS: "linux", Architecture: "arm64"}
		if _, s := save(t, o, SaveOptions{Form: archive.Docker}, "all"); len(s[0].Images) != 0 || s[0].Layers[0].Compression != "none" {
			t.Errorf("%+v", s)
		}
	}
}

// refuseSave: what would get another digest is not written; the reason is told in one line.
func refuseSave(t *testing.T, o Options, so SaveOptions, ref, why string) {
	t.Helper()
	var b bytes.Buffer
	_, err := converter(t, o).Save(t.Context(), []string{ref}, &b, so)
	if kimg.ClassOf(err) != kimg.ErrUnsupported || b.Len() > 0 || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

// TestSavePartOfIndex: what is not all there leaves as what there is of it (X9, X10, X11, X12).
func TestSavePartOfIndex(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", false)
	st := newStore(t)
	putList(t, st, dir+"/in", 1, true)
	var log bytes.Buffer
	o := on(st)
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_, saved := save(t, o, SaveOptions{}, "list")
	if s := saved[0]; !s.Partial || len(s.Missing) == 0 || len(s.Images) != 1 || !strings.Contains(log.String(), string(s.Missing[0])) {
		t.Errorf("%+v\n%s", saved, log.String())
	}
	refuseSave(t, on(st), SaveOptions{PreserveDigests: true}, "list", string(saved[0].Missing[0]))
	if !slices.ContainsFunc(strings.Split(log.String(), "\n"), func(line string) bool { // X14
		return strings.Contains(line, "level=DEBUG") && strings.Contains(line, "localhost/list:latest") && strings.Contains(line, string(saved[0].NewDigest))
	}) {
		t.Errorf("no line for the image: %s", log.String())
	}
	st = newStore(t)
	putList(t, st, dir+"/in", 0, true)
	check(t, errAs(kimg.ErrNotFound, func() error {
		_, err := converter(t, on(st)).Save(t.Context(), []string{"list"}, io.Discard, SaveOptions{})
		return err
	}))
}

func errAs(want kimg.Class, do func() error) error {
	if err := do(); !errors.Is(err, want) {
		return errors.Join(errors.New("not "+string(want)), err)
	}
	return nil
}

// TestSaveMany: many names in one stream, each resolved before anything is written, those of one image together (X2, X8, X13).
func TestSaveMany(t *testing.T) {
	st := newStore(t)
	for i, name := range []string{"a:1", "docker.io/library/b:1"} {
		img := testimage.NewImage(uint64(30+i), testimage.ImageOptions{Layers: 2, Docker: i == 1})
		dir := t.TempDir()
		check(t, img.WriteDir(dir))
		converter(t, on(st)).must(t, "dir:"+dir, "containers-storage:"+name)
	}
	img, err := st.Record(t.Context(), "a:1")
	check(t, err)
	golden := map[archive.Form]string{ // the same for every user and on every machine
		archive.Hybrid: "sha256:f54973302000e84261d8f35fa9511d9f0cd79a4f0d8ab682377539cee38ca7ae",
		archive.OCI:    "sha256:04d5e889c5eb57905e84c2fc95a3bbe5bf792e822540353cc3cd1c3ee2dcb321",
		archive.Docker: "sha256:ffd98917266a9ea950f3a6dcd778e5f6929a32216c7f140ecd05194337d45bd4",
	}
	for _, form := range []archive.Form{archive.Hybrid, archive.OCI, archive.Docker} {
		data, saved := save(t, on(st), SaveOptions{Form: form}, "a:1", "b:1", img.ID, "a:1")
		if len(saved) != 2 || !slices.Equal(saved[0].Names, []string{"localhost/a:1"}) || !slices.Equal(saved[1].Names, []string{"docker.io/library/b:1"}) {
			t.Errorf("%+v", saved)
		}
		if got := testimage.Digest(data); got != golden[form] {
			t.Errorf("form %v has digest %s", form, got)
		}
		again, _ := save(t, on(st), SaveOptions{Form: form}, "a:1", "b:1")
		if !bytes.Equal(again, data) {
			t.Error("saved twice: other bytes")
		}
		names, _ := membersOf(t, data)
		for name, want := range map[string]bool{"index.json": form != archive.Docker, "manifest.json": form != archive.OCI, "repositories": form == archive.Docker} {
			if slices.Contains(names, name) != want {
				t.Errorf("form %v, %s: %v", form, name, names)
			}
		}
		two := newStore(t)
		loaded := load(t, on(two), LoadOptions{}, data)
		if len(loaded) != 2 || loaded[0].ID != img.ID || !slices.Equal(loaded[0].Familiar(), []string{"localhost/a:1"}) || !slices.Equal(loaded[1].Familiar(), []string{"b:1"}) { // X17
			t.Errorf("%+v", loaded)
		}
		if form == archive.Docker { // of before Docker 1.10
			file := filepath.Join(t.TempDir(), "old.tar")
			check(t, os.WriteFile(file, data, 0o644))
			rewriteTar(t, file, func(name string, content []byte) []byte {
				if name == "manifest.json" || strings.HasSuffix(name, ".json") {
					return nil
				}
				return content
			})
			loaded, err := converter(t, on(newStore(t))).Load(t.Context(), file, LoadOptions{})
			if err != nil || len(loaded) != 2 || loaded[0].Names[0] != "docker.io/library/b:1" {
				t.Errorf("%+v, %v", loaded, err)
			}
		}
	}
	// X16: an image without a name has none afterwards.
	data, saved := save(t, on(st), SaveOptions{}, img.ID)
	if loaded := load(t, on(newStore(t)), LoadOptions{}, data); len(saved[0].Names) != 0 || len(loaded[0].Names) != 0 || loaded[0].ID != img.ID {
		t.Errorf("%+v, %+v", saved, loaded)
	}
	var b bytes.Buffer
	if _, err := converter(t, on(st)).Save(t.Context(), []string{"a:1", "nosuch"}, &b, SaveOptions{}); kimg.ClassOf(err) != kimg.ErrNotFound || b.Len() > 0 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

// leased looks at the leases of a store while something is written.
type leased struct {
	st   *store.Store
	seen int
}

func (l *leased) Write(p []byte) (int, error) {
	all, err := l.st.Leases(context.Background())
	l.seen = max(l.seen, len(all))
	return len(p), err
}

// TestSaveHolds: nobody removes what is being written, of a list every image that is there (X6, X7).
func TestSaveHolds(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", false)
	for images, leases := range map[int]int{1: 2, 2: 3} {
		st := newStore(t)
		putList(t, st, dir+"/in", images, false)
		w := &leased{st: st}
		_, err := converter(t, on(st)).Save(t.Context(), []string{"list"}, w, SaveOptions{})
		check(t, err)
		if left, err := st.Leases(t.Context()); err != nil || len(left) > 0 || w.seen != leases {
			t.Errorf("%d leases while it was written, %d afterwards, %v", w.seen, len(left), err)
		}
	}
}

// TestSaveNonDistributable: such layers stay where they are, unless they are asked for (X4).
func TestSaveNonDistributable(t *testing.T) {
	img := testimage.NewImage(40, testimage.ImageOptions{Layers: 2, Gzip: true})
	img.Manifest = edit(t, img.Manifest, func(m map[string]any) {
		l := m["layers"].([]any)[0].(map[string]any)
		l["mediaType"], l["urls"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", []any{"https://example.com/layer"}
	})
	dir := t.TempDir()
	check(t, img.WriteOCI(dir, "a"))
	foreign := "blobs/sha256/" + img.Layers[0].Digest[7:]
	for _, keep := range []bool{true, false} {
		st := newStore(t)
		_, err := converter(t, keeping(st, keep)).Load(t.Context(), dir, LoadOptions{})
		check(t, err)
		data, saved := save(t, on(st), SaveOptions{}, "a")
		_, content := membersOf(t, data)
		if content[foreign] != nil || string(content["manifest.json"]) != "[]" || string(saved[0].Layers[0].Digest) != img.Layers[0].Digest {
			t.Errorf("keep %v: %+v %s", keep, saved, content["manifest.json"])
		}
		// Without the layer's bytes a store cannot unpack it.
		check(t, errAs(kimg.ErrUnsupported, func() error {
			_, err := converter(t, on(newStore(t))).LoadFrom(t.Context(), newReader(data), LoadOptions{})
			return err
		}))
		data, saved = save(t, on(st), SaveOptions{NonDistributable: true}, "a")
		if _, content := membersOf(t, data); (content[foreign] != nil) != keep || string(content["manifest.json"]) == "[]" {
			t.Errorf("keep %v: %+v", keep, saved)
		}
		if keep && saved[0].NewDigest != digest.FromBytes(img.Manifest) {
			t.Errorf("%s", saved[0].NewDigest)
		}
		load(t, on(newStore(t)), LoadOptions{}, data)
	}
}
