package main

import (
	"context"
	"time"

	"github.com/containers/storage/pkg/idtools"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// inspectedContainer is everything about a working container.
type inspectedContainer struct {
	Type string `json:"type"` // container
	containerJSON
	Names       []string          `json:"names"`
	Layer       string            `json:"layer"` // id of its own layer
	Created     time.Time         `json:"created"`
	Foreign     bool              `json:"foreign"` // made by another tool
	MountPoint  string            `json:"mountPoint"`
	Mounts      int               `json:"mounts"` // how often it is mounted
	UIDMap      []idRangeJSON     `json:"uidMap"` // empty: none
	GIDMap      []idRangeJSON     `json:"gidMap"`
	Tool        string            `json:"tool"` // what made it: kimg, buildah, podman, crio; may be empty
	CreatedBy   string            `json:"createdBy"`
	Comment     string            `json:"historyComment"`
	Annotations map[string]string `json:"annotations"`
	OCI         *ispec.Image      `json:"oci,omitempty"`
	Docker      *docker.Image     `json:"docker,omitempty"`

	Generation uint64          `json:"generation"` // of its state; 0: it has none of ours
	Edited     bool            `json:"edited"`     // the configuration says anything else than the image's
	Origin     originJSON      `json:"origin"`
	Edits      []copydata.Step `json:"edits"` // oldest first
	Losses     lossesJSON      `json:"losses,omitempty"`
}

// originJSON is the image a container was made from, as the container's state remembers it.
type originJSON struct {
	Image          string         `json:"image"` // as it was asked for; empty: scratch
	ImageID        string         `json:"imageID"`
	Format         convert.Format `json:"format"`
	ManifestDigest digest.Digest  `json:"manifestDigest"`
	ConfigDigest   digest.Digest  `json:"configDigest"`
}

func newOrigin(state *copydata.CopyData) originJSON {
	source := state.Source()
	o := originJSON{Image: state.ImageName(), ImageID: state.ImageID(), Format: source.Format}
	if len(source.Manifest) > 0 {
		o.ManifestDigest, _ = convert.ManifestDigest(source.Manifest) // it was parsed before
	}
	if len(source.Config) > 0 {
		o.ConfigDigest = digest.FromBytes(source.Config)
	}
	return o
}

// idRangeJSON is one line of an id map.
type idRangeJSON struct {
	Container int `json:"container"`
	Host      int `json:"host"`
	Size      int `json:"size"`
}

func (o *inspectOptions) container(ctx context.Context, st *store.Store, c *store.Container) error {
	settings, err := o.state(ctx, st, c)
	if err != nil && (!c.Foreign || o.raw || o.config) { // of another tool's container the record is shown
		return err
	}
	if o.raw || o.config {
		return o.source(c, settings)
	}
	v := inspectedContainer{
		Type: "container", Names: orEmpty(c.Names), Layer: c.LayerID, Created: c.Created, Foreign: c.Foreign, Tool: c.Tool,
		Edits:         []copydata.Step{},
		containerJSON: containerJSON{ID: c.ID, Name: c.Name, ImageID: c.ImageID}, Annotations: map[string]string{},
		UIDMap: idRanges(c.UIDMap), GIDMap: idRanges(c.GIDMap),
	}
	if path, n, err := c.Mounted(); err == nil && n > 0 {
		v.MountPoint, v.Mounts = path, n
	}
	if settings != nil {
		oci, dock := settings.Config().OCI(), settings.Config().Docker()
		v.Image, v.CreatedBy, v.OCI, v.Docker = settings.ImageName(), settings.CreatedBy(), &oci, &dock
		v.Comment, v.Generation, v.Edited = settings.HistoryComment(), settings.Generation(), settings.Config().Edited()
		v.Origin, v.Edits = newOrigin(settings), orEmpty(settings.History())
		if a := settings.Annotations(); a != nil {
			v.Annotations = a
		}
		if v.Losses, err = losses(settings); err != nil {
			return kimg.Wrap(c.Name, err)
		}
	}
	return o.print(v)
}

func (o *inspectOptions) source(c *store.Container, settings *copydata.CopyData) error {
	doc := settings.Source()
	data := doc.Manifest
	if o.config {
		data = doc.Config
	}
	if len(data) == 0 {
		return kimg.Errorf(kimg.ErrNotFound, c.Name, "made from scratch, there is no image to print")
	}
	return o.document(data)
}

func idRanges(m []idtools.IDMap) []idRangeJSON {
	out := []idRangeJSON{}
	for _, r := range m {
		out = append(out, idRangeJSON{Container: r.ContainerID, Host: r.HostID, Size: r.Size})
	}
	return out
}
