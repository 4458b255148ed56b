package commit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	ociarchive "github.com/containers/image/v5/oci/archive"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// twoLayers makes a container with changes of its own on an image with one layer.
func twoLayers(t *testing.T, s *store.Store) *store.Container {
	t.Helper()
	text := func(seed uint64, size int) string {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, size)
		for i := range data {
			data[i] = "etaoin shrdlu\n"[r.IntN(14)]
		}
		return string(data)
	}
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "base", text(1, 100<<10)) })
	base, _ := into(t, s, c, commit.Options{Names: []string{"base"}})
	c = container(t, s, base)
	edit(t, c, func(root string) { write(t, root, "new", text(2, 4<<20+1000)) })
	return c
}

func layoutAt(t *testing.T, dir, tag string) types.ImageReference {
	t.Helper()
	ref, err := layout.NewReference(dir, tag)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// readBack reads an image from where it was written and checks every layer against its diffID.
func readBack(t *testing.T, ref types.ImageReference, r commit.Result) convert.ManifestView {
	t.Helper()
	src, err := ref.NewImageSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	data, _, err := src.GetManifest(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	view, err := convert.ParseManifest(data)
	if err != nil || digest.FromBytes(data) != r.ManifestDigest || len(view.Layers) != len(r.DiffIDs) {
		t.Fatalf("%d layers of %d, manifest %s, not %s, %v", len(view.Layers), len(r.DiffIDs), digest.FromBytes(data), r.ManifestDigest, err)
	}
	for i, l := range view.Layers {
		body, _, err := src.GetBlob(t.Context(), types.BlobInfo{Digest: l.Digest, Size: l.Size}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sum := digest.SHA256.Digester()
		plain, found, err := compression.NewReader(t.Context(), io.TeeReader(body, sum.Hash()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := digest.FromReader(plain)
		if err != nil || got != r.DiffIDs[i] || sum.Digest() != l.Digest {
			t.Errorf("layer %d, %s: diffID %s, %v", i, found, got, err)
		}
		body.Close()
	}
	return view
}

// E7: Every compression arrives as what it is at every destination that can hold it, and the image is the same.
func TestCompressions(t *testing.T) {
	s := newStore(t)
	c := twoLayers(t, s)
	dir := t.TempDir()
	var id string
	for _, p := range []struct {
		algo  layerdiff.Compression
		level int
		media string
	}{
		{layerdiff.NoCompression, 0, ispec.MediaTypeImageLayer}, {layerdiff.Gzip, 1, ispec.MediaTypeImageLayerGzip},
		{layerdiff.Zstd, 0, ispec.MediaTypeImageLayerZstd}, {layerdiff.Zstd, 7, ispec.MediaTypeImageLayerZstd},
		{layerdiff.ZstdChunked, 0, ispec.MediaTypeImageLayerZstd}, {layerdiff.ZstdChunked, 3, ispec.MediaTypeImageLayerZstd},
	} {
		name := "c" + strings.ReplaceAll(string(p.algo), ":", "-") + "-" + string(rune('0'+p.level))
		archive, err := ociarchive.NewReference(filepath.Join(dir, name+".tar"), "t")
		if err != nil {
			t.Fatal(err)
		}
		plainDir, err := directory.NewReference(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range []types.ImageReference{layoutAt(t, filepath.Join(dir, "oci"), name), archive, plainDir} {
			r, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{ref}, commit.Options{Created: &day}, commit.CopyOptions{Compression: p.algo, Level: p.level, NoSync: true})
			if err != nil {
				t.Fatalf("%s to %s: %v", name, ref.Transport().Name(), err)
			}
			if id == "" {
				id = r.ImageID
			}
			view := readBack(t, ref, r)
			for _, l := range view.Layers {
				_, toc := l.Annotations["io.github.containers.zstd-chunked.manifest-checksum"]
				if l.MediaType != p.media || r.ImageID != id || toc != (p.algo == layerdiff.ZstdChunked) {
					t.Errorf("%s to %s: layer %s, table of contents %v", name, ref.Transport().Name(), l.MediaType, toc)
				}
			}
		}
	}
}

// counting is a reference that counts what is read of layers.
type counting struct {
	types.ImageReference
	reads, bytes *atomic.Int64
}

type countingSource struct {
	types.ImageSource
	c counting
}

type countingReader struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counting) NewImageSource(ctx context.Context, sys *types.SystemContext) (types.ImageSource, error) {
	src, err := c.ImageReference.NewImageSource(ctx, sys)
	return countingSource{src, c}, err
}

func (s countingSource) GetBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	r, n, err := s.ImageSource.GetBlob(ctx, info, cache)
	if err != nil || info.MediaType == ispec.MediaTypeImageConfig {
		return r, n, err
	}
	s.c.reads.Add(1)
	return countingReader{r, s.c.bytes}, n, nil
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// push copies a container with copy.Image, as programs do, and tells how many layers and bytes were read.
func push(t *testing.T, s *store.Store, c *store.Container, dest types.ImageReference, o commit.Options) (reads, size int64, m []byte, err error) {
	t.Helper()
	o.Created = &day
	ref, err := commit.Reference(s, c.ID, o)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	counts := counting{ref, new(atomic.Int64), new(atomic.Int64)}
	m, err = copy.Image(t.Context(), policy, dest, counts, &copy.Options{
		DestinationCtx: &types.SystemContext{OCIAcceptUncompressedLayers: true, BlobInfoCacheDir: t.TempDir()},
	})
	return counts.reads.Load(), counts.bytes.Load(), m, err
}

// E6: What goes to the same place again is neither compressed nor read, and says the same.
func TestSecondPushReadsNothing(t *testing.T) {
	for _, algo := range []layerdiff.Compression{layerdiff.Gzip, layerdiff.Zstd} {
		s := newStore(t)
		c := twoLayers(t, s)
		dest := layoutAt(t, filepath.Join(t.TempDir(), "oci"), "t")
		o := commit.Options{Compression: algo, TempDir: t.TempDir()}
		reads, size, first, err := push(t, s, c, dest, o)
		if err != nil || reads != 2 || size == 0 {
			t.Fatalf("%s: %d layers, %d bytes, %v", algo, reads, size, err)
		}
		o.TempDir = "/nonexistent" // nothing may be compressed
		for _, st := range []*store.Store{s, store.Wrap(s.Storage())} {
			reads, size, again, err := push(t, st, c, dest, o)
			if err != nil || reads != 0 || size != 0 || !bytes.Equal(first, again) {
				t.Errorf("%s again: %d layers, %d bytes, the same %v, %v", algo, reads, size, bytes.Equal(first, again), err)
			}
		}
		// At another place the blobs are made again, from nothing but what is remembered, and come out the same.
		reads, _, again, err := push(t, s, c, layoutAt(t, filepath.Join(t.TempDir(), "oci"), "t"), o)
		if err != nil || reads != 2 || !bytes.Equal(first, again) {
			t.Errorf("%s elsewhere: %d layers, %v", algo, reads, err)
		}
		// With other settings it is another blob.
		o.Level = 1
		if _, _, _, err = push(t, s, c, dest, o); kimg.ClassOf(err) != kimg.ErrNotFound {
			t.Errorf("%s with level 1: %v", algo, err)
		}
		var sent int64
		co := commit.CopyOptions{Compression: algo, NoSync: true}
		o.Created = &day
		o.Progress = func(e commit.Event) {
			if e.Place != "" && e.Step == commit.StepLayers && e.Layer == "" {
				sent += e.Bytes
			}
		}
		if _, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{dest}, o, co); err != nil || sent != 0 {
			t.Errorf("%s by Copy: %d bytes, %v", algo, sent, err)
		}
		// What became a layer of an image is remembered there too.
		img, _ := into(t, s, c, commit.Options{})
		o.TempDir, co.Level = t.TempDir(), 2
		if _, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{dest}, o, co); err != nil {
			t.Fatal(err)
		}
		if known, err := s.KnownBlobs(t.Context(), img.TopLayer); err != nil || len(known) != 1 || known[0].Level != 2 {
			t.Errorf("%s: the image's layer knows %v, %v", algo, known, err)
		}
	}
}

// A memo that is wrong publishes nothing wrong: the copy fails and forgets it, and [commit.Copy] tries again.
func TestWrongMemo(t *testing.T) {
	s := newStore(t)
	c := twoLayers(t, s)
	o := commit.Options{Compression: layerdiff.Zstd}
	co := commit.CopyOptions{Compression: layerdiff.Zstd, NoSync: true}
	right, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{layoutAt(t, filepath.Join(t.TempDir(), "oci"), "t")}, commit.Options{Created: &day}, co)
	if err != nil {
		t.Fatal(err)
	}
	base, err := c.Base(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range []string{base.TopLayer, c.LayerID} {
		known, err := s.KnownBlobs(t.Context(), layer)
		if err != nil || len(known) != 1 {
			t.Fatal(known, err)
		}
		lie := func() {
			t.Helper()
			wrong := known[0]
			wrong.Digest, wrong.Size = digest.FromString("something else"), 77
			if err := s.RememberBlobs(t.Context(), map[string][]store.KnownBlob{layer: {wrong}}); err != nil {
				t.Fatal(err)
			}
		}
		lie()
		dir := filepath.Join(t.TempDir(), "oci")
		if _, _, _, err := push(t, s, c, layoutAt(t, dir, "t"), o); kimg.ClassOf(err) == "" || err == nil {
			t.Error("a wrong digest is published")
		}
		if index, err := os.ReadFile(filepath.Join(dir, "index.json")); err == nil && bytes.Contains(index, []byte("manifest.v1")) {
			t.Errorf("index %s", index)
		}
		if known, err := s.KnownBlobs(t.Context(), layer); err != nil || len(known) != 0 {
			t.Errorf("still knows %v, %v", known, err)
		}
		lie()
		ref := layoutAt(t, filepath.Join(t.TempDir(), "oci"), "t")
		r, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{ref}, commit.Options{Created: &day}, co)
		if err != nil || r.ManifestDigest != right.ManifestDigest {
			t.Fatalf("manifest %s, not %s, %v", r.ManifestDigest, right.ManifestDigest, err)
		}
		readBack(t, ref, r)
		if now, err := s.KnownBlobs(t.Context(), layer); err != nil || len(now) != 1 || now[0] != known[0] {
			t.Errorf("knows %v, %v", now, err)
		}
	}
}

// A container that changed since is another layer; the base stays known. Without room for compressed layers nothing is left.
func TestChangedSince(t *testing.T) {
	s := newStore(t)
	c := twoLayers(t, s)
	dest := layoutAt(t, filepath.Join(t.TempDir(), "oci"), "t")
	o := commit.Options{Compression: layerdiff.Gzip, Logger: slog.New(slog.DiscardHandler)}
	if _, _, _, err := push(t, s, c, dest, o); err != nil {
		t.Fatal(err)
	}
	edit(t, c, func(root string) { write(t, root, "more", "x") })
	reads, _, m, err := push(t, s, c, dest, o)
	var written ispec.Manifest
	if err != nil || reads != 1 || json.Unmarshal(m, &written) != nil || len(written.Layers) != 2 {
		t.Errorf("%d layers, %v, %s", reads, err, m)
	}
}
