package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
)

// Limits of documents read from a store (failure model).
const (
	maxManifest = 4 << 20
	maxConfig   = 4 << 20
	maxLayers   = 500
)

// Image is one image record. The record is a snapshot; manifest, config and layers are read when asked for.
type Image struct {
	ID       string
	Names    []string      // full references, not in any order of importance
	TopLayer string        // "": an image without layers
	Digest   digest.Digest // of the manifest the image was recorded with, or of a list as it is now; may be empty
	Digests  []digest.Digest
	Created  time.Time
	ReadOnly bool // lies in an additional store
	s        *Store
	rec      *storage.Image

	indexAnnotations map[string]string // of the index it was chosen from
}

// LayerInfo is one layer of an image.
type LayerInfo struct {
	ID     string
	DiffID digest.Digest // empty when the store does not know it (a partially pulled layer)
	Size   int64         // of the uncompressed tar; -1: unknown
}

func (s *Store) image(rec *storage.Image) *Image {
	img := &Image{
		ID: rec.ID, Names: rec.Names, TopLayer: rec.TopLayer, Digest: rec.Digest, Digests: rec.Digests,
		Created: rec.Created, ReadOnly: rec.ReadOnly, s: s, rec: rec,
	}
	if img.IsList() { // podman changes a list in place
		img.Digest = rec.BigDataDigests[storage.ImageDigestBigDataKey]
	}
	return img
}

// Images lists every image of the store and the additional stores below it. Nothing but the records is read.
func (s *Store) Images(ctx context.Context) ([]*Image, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	records, err := s.st.Images()
	if err != nil {
		return nil, wrap("images", err)
	}
	images := make([]*Image, len(records))
	for i := range records {
		images[i] = s.image(&records[i])
	}
	return images, nil
}

// Manifest returns the manifest's bytes and media type ("" when it names none). Its digest is checked against the record.
func (i *Image) Manifest(ctx context.Context) ([]byte, string, error) {
	return i.manifestUnder(ctx, storage.ImageDigestBigDataKey)
}

// ManifestByDigest returns another manifest kept with the image (the same image in another format), by its digest.
func (i *Image) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, string, error) {
	return i.manifestUnder(ctx, manifestKey(d))
}

// Descriptor says what the image's manifest is: its media type, digest and size in bytes.
func (i *Image) Descriptor(ctx context.Context) (ispec.Descriptor, error) {
	data, mediaType, err := i.Manifest(ctx)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	d, err := manifest.Digest(data)
	return ispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, err
}

func manifestKey(d digest.Digest) string {
	return storage.ImageDigestManifestBigDataNamePrefix + "-" + d.String()
}

func (i *Image) manifestUnder(ctx context.Context, key string) ([]byte, string, error) {
	data, err := i.bigData(ctx, key, maxManifest)
	if err != nil {
		return nil, "", err
	}
	got, err := manifest.Digest(data)
	if err != nil {
		return nil, "", kimg.Errorf(kimg.ErrInvalid, i.label(), "manifest: %w", err)
	}
	want, ok := i.rec.BigDataDigests[key]
	if d := namedBy(key); d != "" {
		want, got = d, d.Algorithm().FromBytes(data)
	}
	if ok && want != got {
		return nil, "", kimg.Errorf(kimg.ErrIntegrity, i.label(), "the manifest has digest %s, the record says %s", got, want)
	}
	return data, manifest.GuessMIMEType(data), nil
}

// Config returns the bytes of the image's configuration, checked against the digest its manifest gives. An image in
// the old v2s1 format has none: class unsupported.
func (i *Image) Config(ctx context.Context) ([]byte, error) {
	data, _, err := i.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	var m struct {
		Config struct {
			Digest digest.Digest `json:"digest"`
		} `json:"config"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, i.label(), "manifest: %w", err)
	}
	if m.Config.Digest == "" {
		return nil, kimg.Errorf(kimg.ErrUnsupported, i.label(), "the image has no configuration of its own (a manifest list, an artifact or the old v2s1 format)")
	}
	if err := m.Config.Digest.Validate(); err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, i.label(), "config digest: %w", err)
	}
	config, err := i.bigData(ctx, m.Config.Digest.String(), maxConfig)
	if err != nil {
		return nil, err
	}
	if got := m.Config.Digest.Algorithm().FromBytes(config); got != m.Config.Digest {
		return nil, kimg.Errorf(kimg.ErrIntegrity, i.label(), "the config has digest %s, the manifest says %s", got, m.Config.Digest)
	}
	return config, nil
}

// bigData reads one document of the image after checking its recorded size.
func (i *Image) bigData(ctx context.Context, key string, max int64) ([]byte, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	if size, ok := i.rec.BigDataSizes[key]; ok && size > max {
		return nil, kimg.Errorf(kimg.ErrLimit, i.label(), "%s: %d bytes are more than %d", kimg.Escape(key, 100), size, max)
	}
	data, err := i.s.st.ImageBigData(i.ID, key)
	if errors.Is(err, os.ErrNotExist) {
		if slices.Contains(i.rec.BigDataNames, key) {
			return nil, kimg.Errorf(kimg.ErrDamaged, i.label(), "%s is recorded but missing; run kimg check", kimg.Escape(key, 100))
		}
		return nil, kimg.Errorf(kimg.ErrNotFound, i.label(), "no %s is recorded", kimg.Escape(key, 100))
	}
	if err != nil {
		return nil, wrap(i.label(), err)
	}
	if int64(len(data)) > max {
		return nil, kimg.Errorf(kimg.ErrLimit, i.label(), "%s: %d bytes are more than %d", kimg.Escape(key, 100), len(data), max)
	}
	return data, nil
}

// Layers returns the image's layers, base first. A gap in the chain is class damaged.
func (i *Image) Layers(ctx context.Context) ([]LayerInfo, error) {
	chain, err := i.s.chain(ctx, i.TopLayer)
	if errors.Is(err, kimg.ErrNotFound) {
		return nil, kimg.Errorf(kimg.ErrDamaged, i.label(), "its top layer %s is missing; run kimg check", i.TopLayer)
	}
	if err != nil {
		return nil, kimg.Wrap(i.label(), err)
	}
	infos := make([]LayerInfo, 0, len(chain))
	for _, l := range slices.Backward(chain) {
		infos = append(infos, layerInfo(l))
	}
	return infos, nil
}

// Sizes returns how large the uncompressed layers of each image are together, in bytes; -1 when the store does not know that
// or a layer is missing. It looks at the store's layers once, however many images there are.
func (s *Store) Sizes(ctx context.Context, images ...*Image) ([]int64, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	all, err := s.st.Layers()
	if err != nil {
		return nil, wrap("layers", err)
	}
	layers := make(map[string]*storage.Layer, len(all))
	for i := range all {
		layers[all[i].ID] = &all[i]
	}
	sizes := make([]int64, len(images))
	for i, img := range images {
		for id, depth := img.TopLayer, 0; id != ""; depth++ {
			l := layers[id]
			if l == nil || depth == maxLayers || l.UncompressedDigest == "" && l.TOCDigest == "" || l.UncompressedSize < 0 {
				sizes[i] = -1
				break
			}
			sizes[i] += l.UncompressedSize
			id = l.Parent
		}
	}
	return sizes, nil
}

// chain returns a layer and everything below it, top first.
func (s *Store) chain(ctx context.Context, top string) ([]*storage.Layer, error) {
	var chain []*storage.Layer
	for id := top; id != ""; {
		if err := check(ctx); err != nil {
			return nil, err
		}
		if len(chain) == maxLayers {
			return nil, kimg.Errorf(kimg.ErrLimit, "layer "+top, "more than %d layers on top of each other", maxLayers)
		}
		l, err := s.st.Layer(id)
		if errors.Is(err, storage.ErrLayerUnknown) && id == top {
			return nil, kimg.Errorf(kimg.ErrNotFound, "layer "+id, "is not in this store")
		}
		if errors.Is(err, storage.ErrLayerUnknown) {
			return nil, kimg.Errorf(kimg.ErrDamaged, "layer "+id, "is missing; run kimg check")
		}
		if err != nil {
			return nil, wrap("layer "+id, err)
		}
		chain = append(chain, l)
		id = l.Parent
	}
	return chain, nil
}

// label names the image in errors: a name when it has one.
func (i *Image) label() string {
	if len(i.Names) > 0 {
		return kimg.Escape(i.Names[0], 255)
	}
	return i.ID
}

// depth counts the layers up to parent, and refuses another one on top of too many: overlay could not mount them.
func (tx *Tx) depth(ctx context.Context, parent string) (int, error) {
	depth := 0
	tx.mu.Lock()
	for l := range tx.layers() {
		if l.ID == parent {
			depth = l.depth
		}
	}
	tx.mu.Unlock()
	if depth == 0 {
		var err error
		if depth, err = tx.s.depth(ctx, parent); err != nil {
			return 0, err
		}
	}
	if depth >= maxLayers {
		return 0, kimg.Errorf(kimg.ErrLimit, "layer", "more than %d layers on top of each other", maxLayers)
	}
	return depth, nil
}

// depth counts the layers up to one of the store; what was counted before is not counted again: the same id always stands on the same
// layers, and a build asks at every step.
func (s *Store) depth(ctx context.Context, id string) (int, error) {
	if n, ok := s.depths.Load(id); ok && s.layerExists(id) {
		return n.(int), nil
	}
	if id == "" {
		return 0, nil
	}
	chain, err := s.chain(ctx, id)
	if err == nil {
		s.depths.Store(id, len(chain))
	}
	return len(chain), err
}
