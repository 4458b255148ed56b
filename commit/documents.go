package commit

import (
	"maps"

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

// documents writes the configuration and the manifest of the image for a new layer. All layers are named by their
// diffIDs: the image is uncompressed, and whoever copies it may compress it.
func (p *plan) documents(blob layerdiff.Blob) (documents, error) {
	var d documents
	config, err := p.config(blob)
	if err != nil {
		return d, err
	}
	format := p.o.format()
	if d.config, d.report, err = config.JSON(format); err != nil {
		return d, err
	}
	layers := make([]convert.Layer, 0, len(p.base)+1)
	for _, l := range p.base {
		layers = append(layers, convert.Layer{DiffID: l.DiffID, Digest: l.DiffID, Size: l.Size})
	}
	if !blob.Empty {
		layers = append(layers, convert.Layer{DiffID: blob.DiffID, Digest: blob.DiffID, Size: blob.Size})
	}
	annotations := p.annotations()
	descriptor := ispec.Descriptor{Digest: digest.FromBytes(d.config), Size: int64(len(d.config))}
	if d.manifest, d.manifestType, err = convert.Manifest(format, descriptor, layers, annotations); err != nil {
		return d, err
	}
	d.report = append(d.report, convert.ManifestLosses(format, layers, annotations)...)
	d.diffIDs = config.Docker().RootFS.DiffIDs
	return d, nil
}

// config is the container's configuration with the step that this commit is.
func (p *plan) config(blob layerdiff.Blob) (convert.Config, error) {
	config := p.state.Config()
	step := docker.History{
		Created: &p.created, CreatedBy: p.state.CreatedBy(), Comment: p.o.Message,
		Author: config.Docker().Author,
	}
	if p.o.CreatedBy != "" {
		step.CreatedBy = p.o.CreatedBy
	}
	if p.o.Author != "" {
		step.Author = p.o.Author
	}
	var err error
	if blob.Empty {
		config, err = config.AddEmpty(step)
	} else {
		config, err = config.AddLayer(blob.DiffID, step)
	}
	if err != nil {
		return config, err
	}
	return config.Edit(func(img *docker.Image) error {
		img.Created = &p.created
		img.Author = step.Author
		img.Comment = p.o.Message
		// These speak of the commit that made the base image, not of this one.
		img.Container, img.ContainerConfig, img.DockerVersion = "", nil, ""
		img.Parent = ""
		if p.baseInfo.id != "" && p.o.format() == convert.DockerV2S2 {
			img.Parent = "sha256:" + p.baseInfo.id
		}
		if p.o.Change != nil {
			if err := p.o.Change(img); err != nil {
				return err
			}
		}
		if p.o.OmitHistory {
			img.History = nil
		}
		return nil
	})
}

// annotations are those of the container's state, where the image comes from (what the base image says of its own base
// gives way to that), and what the caller wants.
func (p *plan) annotations() map[string]string {
	all := map[string]string{}
	maps.Copy(all, p.state.Annotations())
	if p.o.format() == convert.OCI {
		for name, value := range p.baseInfo.annotations() {
			if all[name] == "" || all[name] == p.baseInfo.inherited[name] {
				all[name] = value
			}
		}
	}
	maps.Copy(all, p.o.Annotations)
	for _, name := range p.o.UnsetAnnotations {
		delete(all, name)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}
