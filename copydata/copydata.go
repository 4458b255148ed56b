package copydata

import (
	"bytes"
	"encoding/json"
	"maps"
	"runtime"
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
	DiffIDs   []digest.Digest // of the layers as they really are, base first; nil when not known

	OS, Arch, Variant string // the platform, for scratch only
}

// CopyData is the state of one container. Not safe for concurrent use.
type CopyData struct {
	generation  uint64 // of the file this was read from or last written to; 0 when there is none yet
	containerID string
	name        string
	imageName   string
	imageID     string
	source      convert.Document // zero for scratch
	config      convert.Config
	annotations map[string]string
	createdBy   string
	mountPoint  string
	history     []json.RawMessage
	unknown     []strict.Member
}

// New returns the state of a new container made from o. Nothing is written: see [CopyData.Save]. The annotations are
// those of the image's manifest, if it is an OCI one.
//
// Errors: invalid for ids, names and images that are not valid, integrity when manifest, configuration and diff IDs do
// not belong together, unsupported for images that package convert does not read and for scratch on Windows, whose
// containers need a base.
func New(o Origin, containerID, name string) (*CopyData, error) {
	c := &CopyData{
		containerID: containerID, name: name, imageName: o.ImageName, imageID: strings.TrimPrefix(o.ImageID, "sha256:"),
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	var err error
	if o.Config == nil {
		c.config, err = scratch(o)
	} else {
		err = c.fromImage(o)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *CopyData) fromImage(o Origin) error {
	if c.imageID == "" {
		return kimg.Errorf(kimg.ErrInvalid, o.ImageName, "an image without an id")
	}
	config, err := convert.Parse(convert.Document{Format: o.Format, Manifest: o.Manifest, Config: o.Config}, o.DiffIDs)
	if err != nil {
		return kimg.Wrap(imageLabel(o), err)
	}
	c.config = config
	c.source = convert.Document{Format: config.Format(), Manifest: bytes.Clone(o.Manifest), Config: config.Source()}
	if o.Manifest != nil {
		view, err := convert.ParseManifest(o.Manifest)
		if err != nil {
			return kimg.Wrap(imageLabel(o), err)
		}
		c.annotations = view.Annotations
	}
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
// their format. Zero for scratch.
func (c *CopyData) Source() convert.Document {
	return convert.Document{
		Format: c.source.Format, Manifest: bytes.Clone(c.source.Manifest), Config: bytes.Clone(c.source.Config),
	}
}

// Annotations returns a copy of the annotations of the future image's manifest.
func (c *CopyData) Annotations() map[string]string { return maps.Clone(c.annotations) }

// ContainerID returns the id of the container.
func (c *CopyData) ContainerID() string { return c.containerID }

// Name returns the name of the container; may be empty.
func (c *CopyData) Name() string { return c.name }

// ImageName returns the image the container was made from, as the user named it; empty for scratch.
func (c *CopyData) ImageName() string { return c.imageName }

// ImageID returns the id of that image; empty for scratch.
func (c *CopyData) ImageID() string { return c.imageID }

// CreatedBy returns the text for the history entry of the commit; may be empty.
func (c *CopyData) CreatedBy() string { return c.createdBy }

// MountPoint returns where the container was last mounted, or nothing. It is what the file says: compare it with what
// is really mounted before using it.
func (c *CopyData) MountPoint() string { return c.mountPoint }

// Generation returns the generation of the file this state was read from or last written to; 0 before the first save.
func (c *CopyData) Generation() uint64 { return c.generation }
