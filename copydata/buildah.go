package copydata

import (
	"maps"
	"slices"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// BuildahFile is the file in a container's directory in which buildah keeps its state.
const BuildahFile = "buildah.json"

// buildahState is what matters of buildah's state. Namespaces, limits and how commands are run have no place in an image.
type buildahState struct {
	Type           string            `json:"type"` // "buildah" and a version
	Image          string            `json:"image"`
	ImageID        string            `json:"image-id"`
	ContainerID    string            `json:"container-id"`
	ContainerName  string            `json:"container-name"`
	MountPoint     string            `json:"mountpoint"`
	Annotations    map[string]string `json:"annotations"`
	CreatedBy      string            `json:"created-by"`
	HistoryComment string            `json:"history-comment"`
	OCI            docker.Image      `json:"ociv1"`
	Docker         docker.Image      `json:"docker"`

	// Steps without a layer, recorded with buildah config --add-history and by builds.
	Before []docker.History `json:"PrependedEmptyLayers"`
	After  []docker.History `json:"AppendedEmptyLayers"`
}

// FromBuildah returns the state of a container that buildah made, from its [BuildahFile] and the image the container
// was made from as the store has it: what buildah commit would make an image of. Nothing is written; saving the state
// makes the container one of ours, and buildah will not know what is edited afterwards. The report says what could not
// be taken over.
//
// Errors are those of [New], and class state for a file that is not buildah's, damaged, or of another container or
// image. They repeat nothing of it.
func FromBuildah(data []byte, o Origin, containerID, name string) (*CopyData, convert.Report, error) {
	b, err := decodeBuildah(data, strings.TrimPrefix(o.ImageID, "sha256:"), containerID)
	if err != nil {
		return nil, nil, kimg.Wrap(BuildahFile+" of container "+containerID, err)
	}
	if o.ImageName == "" {
		o.ImageName = b.Image
	}
	c, err := New(o, containerID, name)
	if err != nil {
		return nil, nil, err
	}
	report, err := c.take(b)
	if err != nil {
		return nil, nil, kimg.Wrap(BuildahFile+" of container "+containerID, damaged("its settings are not valid (%s)", reason(err)))
	}
	c.made, c.edited = "imported", nil
	return c, report, nil
}

func decodeBuildah(data []byte, imageID, containerID string) (buildahState, error) {
	var b buildahState
	if len(data) > MaxSize {
		return b, damaged("%d bytes, the limit is %d", len(data), MaxSize)
	}
	if err := strict.Unmarshal(data, &b); err != nil {
		return b, damaged("%s", err)
	}
	switch {
	case !strings.HasPrefix(b.Type, "buildah "):
		return b, damaged("the type is not buildah's")
	case b.ContainerID != containerID:
		return b, damaged("container-id is another container's")
	case b.ImageID != imageID:
		return b, damaged("image-id is not the image of the container")
	case !printable(b.Image, maxImageName):
		return b, damaged("image is not the name of an image")
	}
	return b, nil
}

// take takes over what buildah's state says.
func (c *CopyData) take(b buildahState) (report convert.Report, err error) {
	if ids := b.Docker.RootFS.DiffIDs; len(ids) > 0 && !slices.Equal(ids, c.config.Docker().RootFS.DiffIDs) {
		return nil, invalid("diff-id: the layers below are not those of the image")
	}
	if !agree(b.Docker, b.OCI) {
		report = append(report, convert.Change{Path: "ociv1", Kind: convert.Warning, Why: "buildah's two configurations disagree; what OCI says is taken"})
	}
	if len(b.After) > 0 {
		report = append(report, convert.Change{Path: "history", Kind: convert.Changed, Why: "steps that buildah records after its commit come before it"})
	}
	err = c.update(func(s *Settings) error {
		s.Annotations, s.HistoryComment, s.CreatedBy = b.Annotations, b.HistoryComment, b.CreatedBy
		if b.MountPoint != "" {
			s.MountPoint = b.MountPoint
		}
		// As buildah fills them in when it commits.
		if b.ImageID != "" && b.Image != b.ImageID {
			s.HistoryComment += "FROM " + b.Image
		}
		img := b.settings()
		if s.CreatedBy == "" {
			s.CreatedBy = strings.Join(img.Config.Shell, " ")
		}
		if s.CreatedBy == "" {
			s.CreatedBy = "/bin/sh"
		}
		s.Image.Author, s.Image.Comment, s.Image.Config = img.Author, img.Comment, img.Config
		s.Image.OS, s.Image.Architecture, s.Image.Variant = img.OS, img.Architecture, img.Variant
		s.Image.OSVersion, s.Image.OSFeatures = img.OSVersion, img.OSFeatures
		for _, step := range slices.Concat(b.Before, b.After) {
			step.EmptyLayer = true
			s.Image.History = append(s.Image.History, step)
		}
		return nil
	})
	return report, err
}

// settings is the Docker configuration, with what OCI can say as the OCI configuration says it: that is what buildah
// commits unless it is asked for Docker's format.
func (b buildahState) settings() docker.Image {
	img, inner := b.Docker, docker.Config{}
	if img.Config != nil {
		inner = *img.Config
	}
	o, oc := b.OCI, docker.Config{}
	if o.Config != nil {
		oc = *o.Config
	}
	img.Author, img.OS, img.Architecture, img.Variant, img.OSVersion, img.OSFeatures = o.Author, o.OS, o.Architecture, o.Variant, o.OSVersion, o.OSFeatures
	inner.User, inner.ExposedPorts, inner.Env, inner.Entrypoint, inner.Cmd = oc.User, oc.ExposedPorts, oc.Env, oc.Entrypoint, oc.Cmd
	inner.Volumes, inner.WorkingDir, inner.Labels, inner.StopSignal = oc.Volumes, oc.WorkingDir, oc.Labels, oc.StopSignal
	img.Config = &inner
	return img
}

// agree tells whether the Docker half says what the OCI half says, as far as that can.
func agree(d, oci docker.Image) bool {
	b := buildahState{Docker: d, OCI: oci}
	if d.Config == nil {
		d.Config = &docker.Config{}
	}
	one, err := encodeImage(d)
	two, err2 := encodeImage(b.settings())
	return err == nil && err2 == nil && maps.Equal(one, two)
}
