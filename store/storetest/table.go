package storetest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// Tests is the table: what every store must do. Each test gets an empty store of its own and leaves nothing mounted.
func Tests() []Test {
	return []Test{
		{"layers", layers}, {"images", images}, {"containers", containers}, {"mounts", mounts},
		{"work layers", workLayers}, {"holds", holds}, {"refused", refused},
	}
}

// Test is one of them.
type Test struct {
	Name string
	Run  func(t *testing.T, s *store.Store)
}

// Run runs the whole table, each test on a store that open makes.
func Run(t *testing.T, open func(t testing.TB) *store.Store) {
	for _, test := range Tests() {
		t.Run(test.Name, func(t *testing.T) { test.Run(t, open(t)) })
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantClass wants an error of a class, and a store that is as it was.
func wantClass(t *testing.T, s *store.Store, class kimg.Class, before string, err error) {
	t.Helper()
	if kimg.ClassOf(err) != class {
		t.Errorf("got %v, want class %s", err, class)
	}
	if after := Inventory(t, s); after != before {
		t.Errorf("the store has changed:\n%s---\n%s", before, after)
	}
}

func cancelled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func oneFile(t testing.TB, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(name))}))
	_, err := w.Write([]byte(name))
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// AddImage makes an image with one layer for each name, which holds a file of that name with it as its content.
func AddImage(t testing.TB, s *store.Store, name string, files ...string) *store.Image {
	t.Helper()
	top := ""
	var diffIDs []digest.Digest
	for _, f := range files {
		l, err := s.AddLayer(t.Context(), top, store.TarSource(bytes.NewReader(oneFile(t, f))))
		must(t, err)
		top, diffIDs = l.ID, append(diffIDs, l.UncompressedDigest)
	}
	config, err := json.Marshal(ispec.Image{Author: name, Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ispec.RootFS{Type: "layers", DiffIDs: diffIDs}})
	must(t, err)
	m := ispec.Manifest{MediaType: ispec.MediaTypeImageManifest, Layers: []ispec.Descriptor{}, Config: ispec.Descriptor{MediaType: ispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}}
	m.SchemaVersion = 2
	for i, d := range diffIDs {
		m.Layers = append(m.Layers, ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: d, Size: int64(len(oneFile(t, files[i])))})
	}
	data, err := json.Marshal(m)
	must(t, err)
	img, err := s.PutImage(t.Context(), store.ImageRecord{Config: config, Manifest: data, ManifestType: m.MediaType, TopLayer: top, Names: []string{name}})
	must(t, err)
	return img
}

func layers(t *testing.T, s *store.Store) {
	ctx, data := t.Context(), oneFile(t, "a")
	l, err := s.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data)))
	must(t, err)
	if l.UncompressedDigest != digest.FromBytes(data) || l.ID != l.UncompressedDigest.Encoded() || l.UncompressedSize != int64(len(data)) {
		t.Errorf("the layer is %+v", l)
	}
	before := Inventory(t, s)
	again, err := s.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data)))
	must(t, err)
	if again.ID != l.ID || Inventory(t, s) != before {
		t.Errorf("an equal layer was made anew: %s", again.ID)
	}
	var out bytes.Buffer
	must(t, s.ExportLayer(ctx, l.ID, &out))
	if !bytes.Equal(out.Bytes(), data) {
		t.Error("the layer does not come out as it went in")
	}
	_, err = s.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data[:512])))
	wantClass(t, s, kimg.ErrIntegrity, before, err)
}

func images(t *testing.T, s *store.Store) {
	ctx := t.Context()
	old := AddImage(t, s, "name", "a", "b")
	if infos, err := old.Layers(ctx); err != nil || len(infos) != 2 {
		t.Errorf("layers: %v, %v", infos, err)
	}
	d, err := old.Descriptor(ctx)
	must(t, err)
	if d.Digest != old.Digest || d.MediaType != ispec.MediaTypeImageManifest || d.Size == 0 {
		t.Errorf("descriptor: %+v", d)
	}
	img := AddImage(t, s, "name:latest", "a", "c")
	for ref, want := range map[string]string{"name": img.ID, "localhost/name:latest": img.ID, old.ID[:12]: old.ID, "sha256:" + old.ID: old.ID, "name@" + string(img.Digest): img.ID} {
		if got, err := s.Resolve(ctx, ref, nil); err != nil || got.ID != want {
			t.Errorf("%s: %v, want %s", ref, err, want)
		}
	}
	if got, err := s.Resolve(ctx, old.ID, nil); err != nil || len(got.Names) != 0 {
		t.Errorf("the image whose name moved: %+v, %v", got, err)
	}
	_, err = s.DeleteImage(ctx, img.ID, false)
	must(t, err)
	if infos, err := old.Layers(ctx); err != nil || len(infos) != 2 {
		t.Errorf("layers after another image with some of them was removed: %v, %v", infos, err)
	}
}

func containers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	img := AddImage(t, s, "base", "a")
	before := Inventory(t, s)
	for _, base := range []*store.Image{img, nil} {
		c, err := s.NewContainer(ctx, base, store.ContainerOptions{Name: "box"})
		must(t, err)
		found, err := s.Container(ctx, c.ID[:12])
		must(t, err)
		if found.Name != "box" || found.Foreign {
			t.Errorf("found %+v", found)
		}
		in := Inventory(t, s)
		_, err = s.NewContainer(ctx, base, store.ContainerOptions{Name: "box"})
		wantClass(t, s, kimg.ErrExists, in, err)
		if base != nil {
			if _, err := s.DeleteImage(ctx, base.ID, false); !errors.Is(err, kimg.ErrBusy) {
				t.Errorf("removing an image in use: %v", err)
			}
		}
		must(t, c.Remove(ctx))
		_, err = s.Container(ctx, "box")
		wantClass(t, s, kimg.ErrNotFound, before, err)
	}
}

// mounts is row X1 and what it stands on.
func mounts(t *testing.T, s *store.Store) {
	ctx := t.Context()
	c, err := s.NewContainer(ctx, AddImage(t, s, "base", "a"), store.ContainerOptions{})
	must(t, err)
	must(t, c.WithMount(ctx, func(root string) error {
		if got := string(read(t, filepath.Join(root, "a"))); got != "a" {
			t.Errorf("the base has %q", got)
		}
		return os.WriteFile(filepath.Join(root, "new"), []byte("new"), 0o644)
	}))
	before := Inventory(t, s)
	wantClass(t, s, kimg.ErrBusy, before, c.WithMount(ctx, func(string) error { return kimg.ErrBusy }))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nothing was called")
			}
		}()
		_ = c.WithMount(ctx, nil) // to call it panics
	}()
	wantClass(t, s, kimg.ErrInterrupted, before, c.WithMount(ctx, func(string) error {
		return kimg.Wrap("", s.Change(cancelled(t), "x", func(ctx context.Context, _ *store.Tx) error { return ctx.Err() }))
	}))
	first, err := c.Mount(ctx)
	must(t, err)
	second, err := c.Mount(ctx)
	must(t, err)
	if first != second || string(read(t, filepath.Join(first, "new"))) != "new" {
		t.Errorf("mounted at %s and %s", first, second)
	}
	must(t, c.Unmount(ctx))
	must(t, c.Unmount(ctx))
	must(t, c.Unmount(ctx)) // once too often is fine
	if after := Inventory(t, s); after != before {
		t.Errorf("the store has changed:\n%s---\n%s", before, after)
	}
}

func workLayers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	img := AddImage(t, s, "base", "a")
	before := Inventory(t, s)
	w, err := s.NewWorkLayer(ctx, img.TopLayer, nil)
	must(t, err)
	other, err := s.NewWorkLayer(ctx, img.TopLayer, nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(w.Root, "new"), []byte("new"), 0o644))
	if _, err := os.Lstat(filepath.Join(other.Root, "new")); !errors.Is(err, os.ErrNotExist) || string(read(t, filepath.Join(other.Root, "a"))) != "a" {
		t.Errorf("another layer on the same parent: %v", err)
	}
	stack, err := w.Stack(ctx)
	must(t, err)
	blob, err := layerdiff.Write(ctx, io.Discard, stack.Stack, layerdiff.Options{})
	must(t, err)
	stack.Close()
	if blob.Entries != 1 {
		t.Errorf("%d entries", blob.Entries)
	}
	for range 2 {
		must(t, w.Release(ctx))
		must(t, other.Release(cancelled(t)))
	}
	_, err = w.Stack(ctx)
	wantClass(t, s, kimg.ErrInvalid, before, err)
}

// holds keeps a layer that no image has as long as somebody counts on it.
func holds(t *testing.T, s *store.Store) {
	ctx := t.Context()
	before := Inventory(t, s)
	hold := func(parent string, below *store.Hold, file string) (string, *store.Hold) {
		var id string
		var h *store.Hold
		must(t, s.Change(ctx, "layer", func(ctx context.Context, tx *store.Tx) error {
			l, err := tx.StageLayer(ctx, parent, store.TarSource(bytes.NewReader(oneFile(t, file))))
			if err == nil {
				id, h = l.ID, tx.Hold(l, below)
			}
			return err
		}))
		return id, h
	}
	first, one := hold("", nil, "a")
	_, two := hold("", nil, "a") // an equal layer is the same one
	_, three := hold(first, one, "b")
	w, err := s.NewWorkLayer(ctx, first, one)
	must(t, err)
	for _, h := range []*store.Hold{one, two, one} {
		must(t, h.Release(ctx))
	}
	must(t, w.Release(ctx))
	if _, err := s.Storage().Layer(first); err != nil {
		t.Errorf("a layer below one that is held: %v", err)
	}
	must(t, three.Release(cancelled(t)))
	if after := Inventory(t, s); after != before {
		t.Errorf("the store has changed:\n%s---\n%s", before, after)
	}
	kept, err := s.AddLayer(ctx, "", store.TarSource(bytes.NewReader(oneFile(t, "a"))))
	must(t, err)
	before = Inventory(t, s)
	_, one = hold("", nil, "a")
	must(t, one.Release(ctx))
	if after := Inventory(t, s); after != before {
		t.Errorf("layer %s was there before it was held:\n%s---\n%s", kept.ID, before, after)
	}
}

func refused(t *testing.T, s *store.Store) {
	ctx := t.Context()
	img := AddImage(t, s, "base", "a")
	before := Inventory(t, s)
	_, err := s.NewWorkLayer(ctx, "absent", nil)
	wantClass(t, s, kimg.ErrNotFound, before, err)
	_, err = s.NewWorkLayer(cancelled(t), img.TopLayer, nil)
	wantClass(t, s, kimg.ErrInterrupted, before, err)
	_, err = s.AddLayer(ctx, "absent", store.TarSource(bytes.NewReader(oneFile(t, "a"))))
	wantClass(t, s, kimg.ErrNotFound, before, err)
	_, err = s.PutImage(ctx, store.ImageRecord{Config: []byte("{}"), Manifest: []byte("{}"), TopLayer: "absent"})
	wantClass(t, s, kimg.ErrNotFound, before, err)
	_, err = s.NewContainer(ctx, img, store.ContainerOptions{Name: "../x"})
	wantClass(t, s, kimg.ErrInvalid, before, err)
	_, err = s.Resolve(ctx, "absent", nil)
	wantClass(t, s, kimg.ErrNotFound, before, err)
}
