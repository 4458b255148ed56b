package transfer

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/containers/storage/pkg/chunked/toc"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store"
)

// Source is one named image at a place, as packages layout and archive open it. Its methods may be called at the same time.
type Source interface {
	// Manifest returns the manifest the name leads to; it may be an index.
	Manifest(ctx context.Context) ([]byte, error)
	// ManifestByDigest returns a manifest of the index, checked against its digest.
	ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error)
	// Blob returns the bytes of a blob, not verified yet, and their number or -1. Class notfound when it is not there.
	Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error)
}

// Image is one image of a source whose documents were read and checked, and whose layers were not read.
type Image struct {
	convert.Document
	Digest   digest.Digest  // of the manifest; who read an index may set it to one that is not of sha256, and the store keeps it under that too
	Platform ispec.Platform // as the configuration states
	Said     []convert.Layer
	DiffIDs  []digest.Digest // base first; nil for schema 1, which does not say them
	src      Source
	created  time.Time
}

// Read reads the documents of one image of a source. The configuration must fit the manifest, with as many diffIDs as there are
// layers; see package convert for what is refused, and [Storable].
func Read(ctx context.Context, src Source, manifest []byte) (*Image, error) {
	img := &Image{src: src}
	var err error
	img.Manifest = manifest
	if img.Format, err = convert.Detect(manifest, ""); err != nil {
		return nil, err
	}
	img.Digest = digest.FromBytes(manifest)
	if img.Format == convert.DockerV2S1 {
		s, err := convert.ParseSchema1(manifest)
		if err == nil {
			img.Digest, err = convert.ManifestDigest(manifest)
		}
		if err != nil {
			return nil, err
		}
		img.Platform = ispec.Platform{OS: "linux", Architecture: s.Architecture}
		for _, d := range s.Layers {
			img.Said = append(img.Said, convert.Layer{Digest: d, Size: -1})
		}
		return img, nil
	}
	v, err := convert.ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	if err := Storable(v.Config.Digest); err != nil {
		return nil, err
	}
	img.Said = v.Layers
	if img.Config, err = Document(ctx, src, v.Config, strict.MaxDocument); err != nil {
		return nil, kimg.Wrap("config", err)
	}
	config, err := convert.ParseConfig(v, img.Config, nil)
	if err != nil {
		return nil, err
	}
	img.described(config)
	return img, nil
}

// Storable refuses an image whose manifest names its configuration by a digest that is not of sha256, class unsupported: other tools fail on
// the whole store while such a one is in it.
func Storable(config digest.Digest) error {
	if config.Algorithm() == digest.Canonical {
		return nil
	}
	return kimg.Errorf(kimg.ErrUnsupported, "config", "digest: podman fails on a store in which one is of %s; convert the image to v2s2", config.Algorithm())
}

// described takes from the configuration what is to be known of it.
func (i *Image) described(c convert.Config) {
	d := c.Docker()
	i.DiffIDs, i.Platform = d.RootFS.DiffIDs, ispec.Platform{OS: d.OS, Architecture: d.Architecture, Variant: d.Variant}
	if d.Created != nil {
		i.created = *d.Created
	}
}

// Document reads a blob of a source that is no larger than max bytes, whole, and checks digest and size.
func Document(ctx context.Context, src Source, d ispec.Descriptor, max int64) ([]byte, error) {
	if err := cmp.Or(strict.Digest(d.Digest.String()), strict.Size(d.Digest.String(), d.Size, max)); err != nil {
		return nil, err
	}
	r, size, err := src.Blob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size >= 0 && size != d.Size {
		return nil, kimg.Errorf(kimg.ErrIntegrity, d.Digest.String(), "size: %d bytes where the manifest says %d", size, d.Size)
	}
	v, err := streamio.NewVerifier(streamio.WithContext(ctx, r), d.Size, d.Digest)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(v)
}

// layers describes the layers for [Layers].
func (i *Image) layers() []Layer {
	all := make([]Layer, len(i.Said))
	for n, said := range i.Said {
		all[n] = Layer{Digest: said.Digest, Size: said.Size, Annotations: said.Annotations, Labels: labels(said.Annotations)}
		if i.DiffIDs != nil {
			all[n].DiffID = i.DiffIDs[n]
		}
		if d, err := toc.GetTOCDigest(said.Annotations); err == nil && d != nil {
			all[n].TOC = *d
		}
		if src, ok := i.src.(SectionSource); ok {
			all[n].Sections = func(ctx context.Context, parts []Section) (io.ReadCloser, error) {
				return src.Sections(ctx, said.Digest, parts)
			}
		}
		all[n].Open = func(ctx context.Context) (io.ReadCloser, int64, error) {
			r, size, err := i.src.Blob(ctx, said.Digest)
			if kimg.ClassOf(err) == kimg.ErrNotFound && convert.Foreign(said.MediaType) {
				err = kimg.Errorf(kimg.ErrUnsupported, said.Digest.String(), "media-type: a foreign layer that is not here; its URLs are not followed, and a store must unpack it")
			}
			return r, size, err
		}
	}
	return all
}

// Unpack brings the layers into a change and returns the record of the image, without names. What is registered after it can
// count on the layers. An image of schema 1 becomes one of schema 2, since a store has no place for its configuration.
func (i *Image) Unpack(ctx context.Context, tx *store.Tx, o Options) (store.ImageRecord, []Done, error) {
	done, err := Layers(ctx, tx, i.layers(), o)
	if err != nil {
		return store.ImageRecord{}, nil, err
	}
	if i.Format == convert.DockerV2S1 {
		if err := i.modernize(done); err != nil {
			return store.ImageRecord{}, nil, err
		}
	}
	rec := store.ImageRecord{Config: i.Config, Manifest: i.Manifest, ManifestType: i.Format.ManifestType(), Created: i.created, Data: map[digest.Digest][]byte{}}
	if i.Digest.Algorithm() != digest.Canonical {
		rec.Data[i.Digest] = i.Manifest
	}
	if len(done) > 0 {
		rec.TopLayer = done[len(done)-1].ID
	}
	return rec, done, nil
}

// modernize writes the documents of a schema 1 image anew, now that its diffIDs are known.
func (i *Image) modernize(done []Done) error {
	layers := make([]convert.Layer, len(done))
	for n, d := range done {
		layers[n] = convert.Layer{DiffID: d.DiffID, Digest: d.DiffID, Size: d.Size, MediaType: ispec.MediaTypeImageLayer}
		if d.Compression == compression.Gzip {
			layers[n].Digest, layers[n].Size, layers[n].MediaType = i.Said[n].Digest, d.Blob, ispec.MediaTypeImageLayerGzip
		}
	}
	doc, _, err := convert.Convert(i.Document, convert.DockerV2S2, layers, convert.Options{})
	if err != nil {
		return err
	}
	config, err := convert.Parse(doc, nil)
	if err != nil {
		return err
	}
	i.Document = doc
	i.described(config)
	return nil
}
