package convert

import (
	"reflect"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Convert returns an image in another format, or in its own with other layers, and what changed on the way.
//
// layers are the blobs as they are at the destination, base first, one for each layer of the source (of a schema 1
// image: one for each of [Schema1.Layers]): digest, size, and the media type that their first bytes show. A DiffID may
// be empty for a schema 2 or OCI source; when it is there it must be the one of the configuration. URLs and
// annotations come from the source; of a layer whose digest is another those that are about its form (see [OfForm]) are replaced by the
// annotations given here. nil means the blobs are as the source says, which a schema 1 image does not.
//
// A document that need not change keeps its bytes: within a format both, and between schema 2 and OCI the
// configuration whenever it is valid in both, so that the image ID stays. The manifest of another format is always new,
// and what that format has no place for is in the report, as is every member nobody knows. The report has the manifest
// first, then the configuration, each in the order of its document.
//
// A schema 1 result has no configuration. Its entries without a layer name the blob of [EmptyLayer], which the caller
// puts at the destination.
//
// Classes as for [Parse]; also unsupported for layers that the format has no type for (zstd for Docker, foreign layers
// for schema 1), and integrity for layers that contradict the source.
func Convert(doc Document, to Format, layers []Layer, o Options) (Document, Report, error) {
	switch to {
	case OCI, DockerV2S2, DockerV2S1:
	default:
		return Document{}, nil, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: format %s is not known", kimg.Quote(string(to)))
	}
	from, err := doc.detect()
	if err != nil {
		return Document{}, nil, kimg.Wrap("manifest", err)
	}
	doc.Format = from
	if from == DockerV2S1 {
		return convertSchema1(doc, to, layers, o)
	}
	return convertSchema2(doc, to, layers, o)
}

// convertSchema2 converts a schema 2 or OCI image.
func convertSchema2(doc Document, to Format, layers []Layer, o Options) (Document, Report, error) {
	c, err := Parse(doc, nil)
	if err != nil {
		return Document{}, nil, err
	}
	m, err := fitManifest(doc, to, layers, c.Docker().RootFS.DiffIDs)
	if err != nil {
		return Document{}, nil, kimg.Wrap("manifest", err)
	}
	out := Document{Format: to}
	var said Report // about the configuration
	if to == DockerV2S1 {
		out.Manifest, said, err = toSchema1(c, m.layers, o)
	} else if out.Config, said, err = c.write(to, o); err == nil {
		out.Manifest, err = m.write(doc.Manifest, out.Config)
	}
	if err == nil {
		m.report, err = m.report.inOrder(doc.Manifest)
	}
	if err != nil {
		return Document{}, nil, err
	}
	return out, append(m.report, said...), nil
}

// convertSchema1 converts a schema 1 image.
func convertSchema1(doc Document, to Format, layers []Layer, o Options) (Document, Report, error) {
	if to == DockerV2S1 {
		manifest, report, err := rewriteSchema1(doc.Manifest, layers, o)
		return Document{Format: to, Manifest: manifest}, report, kimg.Wrap("manifest", err)
	}
	c, report, err := fromSchema1(doc, layers, o)
	if err != nil {
		return Document{}, nil, err
	}
	out := Document{Format: to}
	var said Report
	if out.Config, said, err = c.write(to, o); err != nil {
		return Document{}, nil, err
	}
	var kept []Layer
	for _, l := range layers {
		if o.EmptyLayers == EmptyFlag || !l.Empty {
			kept = append(kept, l)
		}
	}
	config := ispec.Descriptor{Digest: digest.FromBytes(out.Config), Size: int64(len(out.Config))}
	if out.Manifest, _, err = Manifest(to, config, kept, nil); err != nil {
		return Document{}, nil, err
	}
	return out, append(report, said...), nil
}

// write returns the configuration as a document of a format, as the options want it.
func (c Config) write(to Format, o Options) ([]byte, Report, error) {
	if to != OCI || o.DockerFields == DockerKeep {
		out, report, err := c.JSON(to)
		if err == nil {
			err = strict.Size("config", int64(len(out)), strict.MaxDocument)
		}
		return out, report, err
	}
	raw, _, report, err := c.projectOCI()
	if err != nil {
		return nil, nil, kimg.Wrap("config", err)
	}
	p := pruner{why: "OCI does not define it", nulls: true}
	out, err := p.value(raw, reflect.TypeFor[ispec.Image](), "")
	if err == nil {
		report, err = append(report, p.report...).inOrder(raw)
	}
	return out, report, kimg.Wrap("config", err)
}
