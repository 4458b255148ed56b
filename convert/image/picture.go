package image

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/transfer"
)

// picture is one image of a source: its documents, checked, and its layers, not read yet. What is no image is a list of blobs, which can
// only stay as it is: its layers, the first of which is its configuration.
type picture struct {
	convert.Document
	digest  digest.Digest // of the manifest, as an index names it
	conf    digest.Digest // of the configuration, as the manifest names it
	schema1 convert.Schema1
	said    []convert.Layer // the layers as the source has them, base first
	blobs   []blob          // one for each
	diffIDs []digest.Digest // as the configuration says; schema 1 does not
	keyIDs  []string
	lost    convert.Report // what is lost of the image besides its documents
	signed  bool           // signatures go along, which would be void if it changed
	noImage error          // why it is none, class unsupported

	config   convert.Config // not of schema 1
	platform ispec.Platform // as the configuration says
}

// layerSource is a source that has layers in another form than its manifest says.
type layerSource interface {
	layers(ctx context.Context, p *picture) ([]blob, error)
}

// readPicture reads and checks the documents of one image.
func (c *Converter) readPicture(ctx context.Context, src Source, manifest []byte) (picture, error) {
	p, err := c.readAny(ctx, src, manifest)
	if err == nil {
		err = p.noImage
	}
	return p, err
}

// readAny is readPicture of what need not be an image.
func (c *Converter) readAny(ctx context.Context, src Source, manifest []byte) (picture, error) {
	return c.readNamed(ctx, src, manifest, digest.Canonical)
}

// readNamed is readAny of what an index names by a digest of an algorithm.
func (c *Converter) readNamed(ctx context.Context, src Source, manifest []byte, by digest.Algorithm) (picture, error) {
	var p picture
	var err error
	if p.Format, err = convert.Detect(manifest, ""); err != nil {
		return p, err
	}
	p.Manifest, p.digest = manifest, by.FromBytes(manifest)
	if p.Format == convert.DockerV2S1 {
		err = c.readSchema1(&p)
	} else {
		err = p.readSchema2(ctx, src)
	}
	if err != nil {
		return p, err
	}
	if len(p.said) > convert.MaxLayers && p.noImage == nil {
		return p, kimg.Errorf(kimg.ErrLimit, "manifest", "too-big: %d layers, the limit is %d", len(p.said), convert.MaxLayers)
	}
	return p, p.findBlobs(ctx, src)
}

func (c *Converter) readSchema1(p *picture) (err error) {
	if p.schema1, err = convert.ParseSchema1(p.Manifest); err == nil {
		p.digest, err = convert.ManifestDigest(p.Manifest)
	}
	if err != nil {
		return err
	}
	if c.o.VerifyJWS {
		if p.keyIDs, err = convert.VerifyJWS(p.Manifest); err != nil {
			return kimg.Wrap("manifest", err)
		}
	}
	p.platform = ispec.Platform{OS: "linux", Architecture: p.schema1.Architecture}
	for _, d := range p.schema1.Layers {
		p.said = append(p.said, convert.Layer{Digest: d, Size: -1})
	}
	return nil
}

func (p *picture) readSchema2(ctx context.Context, src Source) error {
	v, err := convert.ParseManifest(p.Manifest)
	if kimg.ClassOf(err) == kimg.ErrUnsupported {
		p.noImage = err
		v, err = convert.ParseAny(p.Manifest)
		p.said = append([]convert.Layer{{Digest: v.Config.Digest, Size: v.Config.Size, MediaType: v.Config.MediaType}}, v.Layers...)
		return err
	}
	if err != nil {
		return err
	}
	p.said, p.conf = v.Layers, v.Config.Digest
	if p.Config, err = transfer.Document(ctx, src, v.Config, strict.MaxDocument); err != nil {
		return kimg.Wrap("config", err)
	}
	p.config, err = convert.ParseConfig(v, p.Config, nil)
	img := p.config.Docker()
	p.diffIDs = img.RootFS.DiffIDs
	p.platform = ispec.Platform{OS: img.OS, Architecture: img.Architecture, Variant: img.Variant, OSVersion: img.OSVersion, OSFeatures: img.OSFeatures}
	return err
}

// findBlobs says where the bytes of each layer come from.
func (p *picture) findBlobs(ctx context.Context, src Source) error {
	if other, ok := src.(layerSource); ok && p.noImage == nil {
		blobs, err := other.layers(ctx, p)
		if err == nil && len(blobs) != len(p.said) {
			err = kimg.Errorf(kimg.ErrUnsupported, "", "count: the store has %d layers of the image, the manifest %d", len(blobs), len(p.said))
		}
		p.blobs = blobs
		return err
	}
	for _, l := range p.said {
		p.blobs = append(p.blobs, blobOf(src, l.Digest, l.Size))
	}
	return nil
}

// blobOf is a blob that a source has under its own digest.
func blobOf(src Source, d digest.Digest, size int64) blob {
	return blob{digest: d, size: size, open: func(ctx context.Context) (io.ReadCloser, int64, error) {
		return src.Blob(ctx, d)
	}}
}

// foreign reports whether a layer stays where it is. One that a store has is like any other.
func (p *picture) foreign(i int) bool {
	return convert.Foreign(p.said[i].MediaType) && p.blobs[i].digest == p.said[i].Digest
}

// layers moves every layer to a destination, side by side; each blob once, however often the image has it. Foreign layers
// stay where they are: theirs have no identity.
func (c *Converter) layers(ctx context.Context, p *picture, dst Destination, in shape) ([]moved, error) {
	all := make([]moved, len(p.blobs))
	first := map[digest.Digest]int{}
	var todo []int
	for i, b := range p.blobs {
		if _, again := first[b.digest]; !again && !p.foreign(i) {
			first[b.digest] = i
			todo = append(todo, i)
		}
	}
	err := c.parallel(ctx, len(todo), func(ctx context.Context, n int) (err error) {
		i := todo[n]
		all[i], err = c.layer(ctx, p, p.blobs[i], dst, in)
		return kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
	})
	if err != nil {
		return nil, err
	}
	var total int64
	for i, b := range p.blobs {
		if p.foreign(i) {
			continue
		}
		all[i] = all[first[b.digest]]
		if b.size >= 0 && b.size != all[i].size {
			return nil, sizeError(b, all[i].size)
		}
		if total += all[i].plain; total > maxImage {
			return nil, kimg.Errorf(kimg.ErrLimit, "", "too-big: more than %d bytes uncompressed", int64(maxImage))
		}
	}
	return all, nil
}

// layer moves one layer. An empty one that will not be in the image is not moved.
func (c *Converter) layer(ctx context.Context, p *picture, b blob, dst Destination, in shape) (moved, error) {
	if p.Format == convert.DockerV2S1 && c.o.Convert.EmptyLayers == convert.EmptyContent {
		m, err := c.move(ctx, b, nil, in)
		if err != nil || m.empty {
			m.form, m.at = keep, identity{b.digest, m.size}
			return m, err
		}
	}
	if m, there, err := c.offered(ctx, b, dst, in); err != nil || there {
		return m, err
	}
	return c.move(ctx, b, dst, in)
}

// atDestination describes the moved layers as package convert wants them.
func (p *picture) atDestination(all []moved) []convert.Layer {
	layers := make([]convert.Layer, len(all))
	for i, m := range all {
		if p.foreign(i) {
			l := p.said[i]
			layers[i] = convert.Layer{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType}
			continue
		}
		layers[i] = convert.Layer{
			Digest: m.at.digest, Size: m.at.size, DiffID: m.diffID, Empty: m.empty, MediaType: ispec.MediaTypeImageLayer,
		}
		switch a := m.compression(); a {
		case compression.None:
		case zstdChunked:
			layers[i].MediaType, layers[i].Annotations = ispec.MediaTypeImageLayerZstd, m.packed.annotations()
		default:
			layers[i].MediaType += "+" + string(a)
		}
	}
	return layers
}
