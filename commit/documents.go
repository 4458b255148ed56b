package commit

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/layerdiff"
)

// documents are the two documents of an image, and what they could not say.
type documents struct {
	config, manifest []byte
	manifestType     string
	diffIDs          []digest.Digest
	report           convert.Report
}

// mediaTypes are those of layers compressed with an algorithm.
var mediaTypes = map[string]string{"gzip": ispec.MediaTypeImageLayerGzip, "zstd": ispec.MediaTypeImageLayerZstd}

// documents writes the documents of the image for a new layer on top of the base image's. Layers are named as they are offered; without
// offers by their diffIDs: then the image is uncompressed, and whoever copies it may compress it.
func (p *plan) documents(blob layerdiff.Blob, offers []*offer) (documents, error) {
	config, err := p.config(blob)
	if err != nil {
		return documents{}, err
	}
	layers := asLayers(p.base)
	for i, l := range p.baseInfo.layers {
		layers[i].Annotations = uncompressed(l.Annotations)
	}
	if !blob.Empty {
		layers = append(layers, convert.Layer{DiffID: blob.DiffID, Digest: blob.DiffID, Size: blob.Size, Annotations: p.state.LayerAnnotations()})
	}
	for i, o := range offers {
		layers[i].Digest, layers[i].Size, layers[i].MediaType = o.digest(), o.size(), mediaTypes[o.blob.Algorithm]
		if len(o.toc) > 0 {
			all := map[string]string{}
			maps.Copy(all, layers[i].Annotations)
			maps.Copy(all, o.toc)
			layers[i].Annotations = all
		}
	}
	d, err := write(p.o.format(), config, layers, p.annotations())
	d.report = append(slices.Clone(p.imported), d.report...)
	return d, err
}

// uncompressed are the annotations of a layer that are true of every form of it: not those that say where in its compressed
// form something lies, or how that is encrypted.
func uncompressed(annotations map[string]string) map[string]string {
	kept := maps.Clone(annotations)
	maps.DeleteFunc(kept, func(key, _ string) bool {
		return convert.OfForm(key) || strings.HasPrefix(key, "containerd.io/snapshot/")
	})
	return kept
}

// write writes a configuration and the manifest that ties it to its layers.
func write(format convert.Format, config convert.Config, layers []convert.Layer, annotations map[string]string) (documents, error) {
	var d documents
	var err error
	if d.config, d.report, err = configJSON(config, format); err != nil {
		return d, err
	}
	descriptor := ispec.Descriptor{Digest: digest.FromBytes(d.config), Size: int64(len(d.config))}
	if d.manifest, d.manifestType, err = convert.Manifest(format, descriptor, layers, annotations); err != nil {
		return d, err
	}
	d.report = append(d.report, convert.ManifestLosses(format, layers, annotations)...)
	d.diffIDs = config.Docker().RootFS.DiffIDs
	return d, nil
}

// configJSON writes a configuration and says what the format changes in it, and what its readers will not hear.
func configJSON(config convert.Config, format convert.Format) ([]byte, convert.Report, error) {
	data, report, err := config.JSON(format)
	if err != nil {
		return nil, nil, err
	}
	ignored, err := config.Ignored(format)
	return data, append(report, ignored...), err
}

// config is the container's configuration with the step that this commit is.
func (p *plan) config(blob layerdiff.Blob) (convert.Config, error) {
	config := p.state.Config()
	step := docker.History{
		Created: &p.created, CreatedBy: p.state.CreatedBy(), Comment: p.state.HistoryComment(),
		Author: config.Docker().Author,
	}
	if p.o.CreatedBy != "" {
		step.CreatedBy = p.o.CreatedBy
	}
	if p.o.Message != "" {
		step.Comment = p.o.Message
	}
	if p.o.Author != "" {
		step.Author = p.o.Author
	}
	var err error
	if p.o.Squash {
		if config, err = config.Edit(func(img *docker.Image) error {
			img.RootFS.DiffIDs, img.History = nil, nil
			return nil
		}); err != nil {
			return config, err
		}
	}
	if blob.Empty {
		config, err = config.AddEmpty(step)
	} else {
		config, err = config.AddLayer(blob.DiffID, step)
	}
	if err != nil {
		return config, err
	}
	return p.o.finish(config, p.created, step.Author, p.comment())
}

// comment is what the caller says, else what was set on the container. The base image's own speaks of the base image.
func (p *plan) comment() string {
	own := p.state.Config().Docker().Comment
	if p.o.Message != "" {
		return p.o.Message
	}
	if p.state.SourceConfig().Docker().Comment == own {
		return ""
	}
	return own
}

// finish sets what every new image says about itself, and what the caller wants.
func (o Options) finish(config convert.Config, created time.Time, author, comment string) (convert.Config, error) {
	return config.Edit(func(img *docker.Image) error {
		img.Created, img.Author, img.Comment = &created, author, comment
		// These speak of how the base image was made, not of this one. Nothing takes their place: the configuration is
		// the same in every format, and so is the image's ID.
		img.Parent, img.Container, img.ContainerConfig, img.DockerVersion = "", "", nil, ""
		if o.Change != nil {
			if err := o.Change(img); err != nil {
				return err
			}
		}
		if o.OmitHistory {
			img.History = nil
		}
		return nil
	})
}

// annotations are those of the container's state, and what [Options.annotate] says.
func (p *plan) annotations() map[string]string {
	return p.o.annotate(p.state.Annotations(), p.baseInfo)
}

// annotate adds to annotations where the image comes from (what the base image says of its own base gives way to that), and what the
// caller wants.
func (o Options) annotate(own map[string]string, base baseImage) map[string]string {
	all := map[string]string{}
	maps.Copy(all, own)
	if o.format() == convert.OCI {
		for name, value := range base.annotations() {
			if all[name] == "" || all[name] == base.inherited[name] {
				all[name] = value
			}
		}
	}
	maps.Copy(all, o.Annotations)
	for _, name := range o.UnsetAnnotations {
		delete(all, name)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}
