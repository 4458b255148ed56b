package store

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
)

// IsList tells whether the image is a manifest list as podman keeps them.
func (i *Image) IsList() bool { return slices.Contains(i.rec.BigDataNames, instancesKey) }

// instances reads where the instances of a list are.
func (i *Image) instances(ctx context.Context) (map[digest.Digest]string, error) {
	data, err := i.bigData(ctx, instancesKey, maxInstances)
	if err != nil {
		return nil, err
	}
	var all map[digest.Digest]string
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, i.label(), "%s: %w", instancesKey, err)
	}
	return all, nil
}

// List is a manifest list of the store: its index as it came, and what the store has of it.
type List struct {
	convert.IndexView
	Index   []byte
	Entries []ListEntry // one for each of Manifests
	img     *Image
}

// ListEntry is one entry of an index.
type ListEntry struct {
	ispec.Descriptor
	Image *Image // nil: not an image of this store
	// Elsewhere is where an image is that the store has not, as a reference with its transport; empty: nobody knows. It is read from
	// the store and must not be trusted more than what people write.
	Elsewhere string
	Missing   []digest.Digest // what this store has not of it, its manifest or blobs that it names; empty: it is complete
}

// List reads a manifest list and looks for every entry in the store. Class unsupported for an image that is none.
func (i *Image) List(ctx context.Context) (List, error) {
	if !i.IsList() {
		return List{}, kimg.Errorf(kimg.ErrUnsupported, i.label(), "not an index but one image")
	}
	data, _, err := i.Manifest(ctx)
	if err != nil {
		return List{}, err
	}
	l := List{Index: data, img: i}
	if l.IndexView, err = listView(data); err != nil {
		return List{}, kimg.Wrap(i.label(), err)
	}
	known, err := i.instances(ctx)
	if err != nil {
		return List{}, err
	}
	for _, d := range l.Manifests {
		e, err := i.entry(ctx, d)
		if err != nil {
			return List{}, err
		}
		if where := known[d.Digest]; e.Image == nil && !strings.HasPrefix(where, "containers-storage:") {
			e.Elsewhere = where
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// listView parses the index of a list. An empty one of podman's has null where there should be a list of none.
func listView(data []byte) (convert.IndexView, error) {
	var x struct{ Manifests json.RawMessage }
	if json.Unmarshal(data, &x) == nil && string(x.Manifests) == "null" {
		return convert.IndexView{Format: convert.DockerV2S2, MediaType: manifest.GuessMIMEType(data)}, nil
	}
	return convert.ParseIndex(data)
}

// entry looks for one entry.
func (i *Image) entry(ctx context.Context, d ispec.Descriptor) (e ListEntry, err error) {
	e.Descriptor = d
	if e.Image, err = i.s.manifestOwner(d.Digest); err != nil {
		return e, err
	}
	owner := e.Image
	if owner == nil {
		owner = i
	}
	if !convert.IsManifest(d) {
		if !owner.keeps(d.Digest.String()) {
			e.Missing = append(e.Missing, d.Digest)
		}
		return e, nil
	}
	data, err := owner.ownManifest(ctx, d.Digest)
	if class := kimg.ClassOf(err); class == kimg.ErrNotFound || class == kimg.ErrDamaged {
		e.Missing = append(e.Missing, d.Digest)
		return e, nil
	}
	if err != nil {
		return e, err
	}
	var m ispec.Manifest
	if err := strict.UnmarshalExact(data, &m); err != nil {
		return e, kimg.Wrap(d.Digest.String(), err)
	}
	layers := e.Image != nil
	if layers {
		_, err := e.Image.Layers(ctx)
		if layers = err == nil; err != nil && kimg.ClassOf(err) != kimg.ErrDamaged {
			return e, err
		}
	}
	if m.Config.Digest != "" && !owner.keeps(m.Config.Digest.String()) {
		e.Missing = append(e.Missing, m.Config.Digest)
	}
	for _, l := range m.Layers {
		if !layers && !owner.keeps(l.Digest.String()) && !convert.Foreign(l.MediaType) {
			e.Missing = append(e.Missing, l.Digest)
		}
	}
	return e, nil
}

// keeps tells whether the record has a document.
func (i *Image) keeps(key string) bool { return slices.Contains(i.rec.BigDataNames, key) }

// ownManifest reads one of the manifests that are kept with an image.
func (i *Image) ownManifest(ctx context.Context, d digest.Digest) ([]byte, error) {
	key := manifestKey(d)
	if !i.keeps(key) && i.rec.BigDataDigests[storage.ImageDigestBigDataKey] == d {
		key = storage.ImageDigestBigDataKey
	}
	data, _, err := i.manifestUnder(ctx, key)
	return data, err
}

// Manifest reads the manifest of an entry, of an image or of what is kept as data. Class notfound when the store has not got it.
func (l List) Manifest(ctx context.Context, d digest.Digest) ([]byte, error) {
	for _, e := range l.Entries {
		if e.Digest == d && e.Image != nil {
			return e.Image.ownManifest(ctx, d)
		}
	}
	return l.img.ownManifest(ctx, d)
}

// Blob opens a blob of the list or of one of its images, as [Image.Blob] does.
func (l List) Blob(ctx context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	for _, e := range l.Entries {
		if e.Image == nil {
			continue
		}
		if kept, err := e.Image.Keeps(ctx, d); err != nil || kept {
			if err != nil {
				return nil, err
			}
			return e.Image.Blob(ctx, d, size)
		}
	}
	return l.img.Blob(ctx, d, size)
}

// document reads a document that is kept under its digest, and checks it.
func (i *Image) document(ctx context.Context, d digest.Digest) ([]byte, error) {
	data, err := i.bigData(ctx, d.String(), maxListData)
	if err == nil {
		err = streamio.Check(data, d)
	}
	return data, err
}

// Best is the most of a list that can leave the store whole: the index itself when it is complete, the manifest of the only
// entry that is, or an index with fewer entries and everything else as it was. An attestation goes with its image. Class
// notfound, with what is missing, when nothing is complete.
func (l List) Best(ctx context.Context) (data []byte, mediaType string, err error) {
	state := map[digest.Digest]bool{} // whether an entry is complete
	var missing digest.Digest
	for _, e := range l.Entries {
		if state[e.Digest] = len(e.Missing) == 0; !state[e.Digest] && missing == "" {
			missing = e.Missing[0]
		}
	}
	var kept []ispec.Descriptor
	keep := func(d ispec.Descriptor) bool {
		about, there := state[convert.AttestationOf(d)]
		return state[d.Digest] && (about || !there)
	}
	for _, d := range l.Manifests {
		if keep(d) {
			kept = append(kept, d)
		}
	}
	switch {
	case len(kept) == 0:
		return nil, "", kimg.Errorf(kimg.ErrNotFound, l.img.label(), "blob-missing: of no entry of this index is everything in this store (%s)", kimg.Quote(missing.String()))
	case len(kept) == 1 && len(l.Entries) > 1:
		data, err = l.Manifest(ctx, kept[0].Digest)
		return data, kept[0].MediaType, err
	}
	data, err = convert.ReduceIndex(l.Index, keep)
	return data, l.MediaType, err
}

// manifestOwner finds the image, no list, that has a manifest; nil when there is none.
func (s *Store) manifestOwner(d digest.Digest) (*Image, error) {
	records, err := s.byDigest(d)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if img := s.image(rec); !img.IsList() {
			return img, nil
		}
	}
	return nil, nil
}
