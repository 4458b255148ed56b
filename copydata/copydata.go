package copydata

import (
	"bytes"
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// Origin is what a container is made from. The zero value is an empty container, "scratch", for linux on this
// program's architecture.
type Origin struct {
	ImageName string          // as the user named it
	ImageID   string          // 64 hexadecimal digits, "sha256:" in front allowed; empty for scratch
	Format    convert.Format  // of Manifest and Config; empty to let the manifest say it
	Manifest  []byte          // as the image came; nil when there is none
	Config    []byte          // as the image came; nil for scratch
	DiffIDs   []digest.Digest // of the layers as they really are, base first; nil when not known, which schema 1 does not allow

	// IndexAnnotations are those of the index the image was chosen from, which speak of all its images. The manifest's own
	// come first.
	IndexAnnotations map[string]string

	OS, Arch, Variant string // the platform, for scratch only
}

// CopyData is the state of one container. Not safe for concurrent use.
type CopyData struct {
	generation  uint64 // of the file this was read from or last written to; 0 when there is none yet
	containerID string // empty for the state of an image
	imageName   string
	imageID     string
	source      convert.Document // zero for scratch
	diffIDs     []digest.Digest  // of the source's layers; schema 1 only, which does not say them itself
	base        convert.Config   // what source says; zero for scratch
	config      convert.Config
	texts
	history []json.RawMessage
	made    string   // what the first step of the history is to say; empty: created
	edited  []string // members that were edited since the last save
	unknown []strict.Member
}

// texts are the settings beside the configuration.
type texts struct {
	annotations      map[string]string
	layerAnnotations map[string]string
	createdBy        string
	historyComment   string
	name             string
	mountPoint       string
}

// New returns the state of a new container made from o. Nothing is written: see [CopyData.Save]. The annotations are
// those of the image's manifest, if it is an OCI one, and of its index.
//
// Errors: invalid for ids, names and images that are not valid, integrity when manifest, configuration and diff IDs do
// not belong together, unsupported for images that package convert does not read and for scratch on Windows, whose
// containers need a base.
func New(o Origin, containerID, name string) (*CopyData, error) {
	if err := strict.ID(containerID); err != nil {
		return nil, kimg.Wrap("container", err)
	}
	return fromOrigin(o, containerID, name)
}

// FromImage returns the state a container of the image would begin with, for those who only want to look at an image or
// to edit what it says. It belongs to no container and cannot be saved. Errors are those of [New].
func FromImage(o Origin) (*CopyData, error) { return fromOrigin(o, "", "") }

// Renew returns the state that takes the place of a container's file, damaged or not, with the settings of the image
// again. Saving it is refused, class busy, when the file has moved on since old was read; nil, or a file too damaged to
// tell its generation, counts as none. Errors are those of [New].
func Renew(old []byte, o Origin, containerID, name string) (*CopyData, error) {
	c, err := New(o, containerID, name)
	if err != nil {
		return nil, err
	}
	c.made = "rebuilt"
	if f, unknown, err := decodeFile(old); err == nil {
		c.history, c.unknown = f.History, unknown
	}
	c.generation, _ = Generation(old)
	return c, nil
}

func fromOrigin(o Origin, containerID, name string) (*CopyData, error) {
	c := &CopyData{
		containerID: containerID, imageName: o.ImageName, imageID: strings.TrimPrefix(o.ImageID, "sha256:"), texts: texts{name: name},
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	var err error
	if o.Config == nil && !isSchema1(o) {
		c.config, err = scratch(o)
	} else {
		err = c.fromImage(o)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// isSchema1 tells whether an image without a configuration of its own is one of those that have it in the manifest.
func isSchema1(o Origin) bool {
	if o.Format != "" || o.Manifest == nil {
		return o.Format == convert.DockerV2S1
	}
	f, err := convert.Detect(o.Manifest, "")
	return err == nil && f == convert.DockerV2S1
}

func (c *CopyData) fromImage(o Origin) error {
	if c.imageID == "" {
		return kimg.Errorf(kimg.ErrInvalid, o.ImageName, "an image without an id")
	}
	config, err := convert.Parse(convert.Document{Format: o.Format, Manifest: o.Manifest, Config: o.Config}, o.DiffIDs)
	if err != nil {
		return kimg.Wrap(imageLabel(o), err)
	}
	c.config, c.base = config, config
	c.source = convert.Document{Format: config.Format(), Manifest: bytes.Clone(o.Manifest), Config: bytes.Clone(o.Config)}
	c.annotations = maps.Clone(o.IndexAnnotations)
	switch {
	case config.Format() == convert.DockerV2S1:
		c.diffIDs = slices.Clone(o.DiffIDs)
		return nil
	case o.Manifest == nil:
		return nil
	}
	view, err := convert.ParseManifest(o.Manifest)
	if err != nil {
		return kimg.Wrap(imageLabel(o), err)
	}
	if c.annotations == nil {
		c.annotations = view.Annotations
	}
	maps.Copy(c.annotations, view.Annotations)
	return nil
}

func imageLabel(o Origin) string {
	if o.ImageName != "" {
		return "image " + o.ImageName
	}
	return "image " + o.ImageID
}

func scratch(o Origin) (convert.Config, error) {
	switch {
	case o.ImageID != "" || o.Manifest != nil || len(o.DiffIDs) > 0:
		return convert.Config{}, kimg.Errorf(kimg.ErrInvalid, imageLabel(o), "an image without a configuration")
	case o.OS == "windows":
		return convert.Config{}, kimg.Errorf(kimg.ErrUnsupported, "scratch", "windows containers need a base image")
	case o.OS == "":
		o.OS = "linux"
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	return convert.NewConfig(o.OS, o.Arch, o.Variant), nil
}

// Config returns the configuration of the image the container will become. Its Edited method tells whether that
// differs from the image the container was made from.
func (c *CopyData) Config() convert.Config { return c.config }

// Source returns a copy of the manifest and configuration of the image the container was made from, as they came, and
// their format. Zero for scratch; an image of schema 1 has no configuration of its own (see [CopyData.SourceConfig]).
func (c *CopyData) Source() convert.Document {
	return convert.Document{
		Format: c.source.Format, Manifest: bytes.Clone(c.source.Manifest), Config: bytes.Clone(c.source.Config),
	}
}

// SourceConfig returns the configuration of the image the container was made from; the zero Config for scratch.
func (c *CopyData) SourceConfig() convert.Config { return c.base }

// Annotations returns a copy of the annotations of the future image's manifest.
func (c *CopyData) Annotations() map[string]string { return maps.Clone(c.annotations) }

// LayerAnnotations returns a copy of the annotations of the layer that the commit will add.
func (c *CopyData) LayerAnnotations() map[string]string { return maps.Clone(c.layerAnnotations) }

// ContainerID returns the id of the container; empty for the state of an image.
func (c *CopyData) ContainerID() string { return c.containerID }

// Name returns the name of the container; may be empty.
func (c *CopyData) Name() string { return c.name }

// ImageName returns the image the container was made from, as the user named it; empty for scratch.
func (c *CopyData) ImageName() string { return c.imageName }

// ImageID returns the id of that image; empty for scratch.
func (c *CopyData) ImageID() string { return c.imageID }

// CreatedBy returns the text for the history entry of the commit; may be empty.
func (c *CopyData) CreatedBy() string { return c.createdBy }

// HistoryComment returns the comment for the history entry of the commit; may be empty.
func (c *CopyData) HistoryComment() string { return c.historyComment }

// MountPoint returns where the container was last mounted, or nothing. It is what the file says: compare it with what
// is really mounted before using it.
func (c *CopyData) MountPoint() string { return c.mountPoint }

// Generation returns the generation of the file this state was read from or last written to; 0 before the first save.
func (c *CopyData) Generation() uint64 { return c.generation }
