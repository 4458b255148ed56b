package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/containers/storage/pkg/idtools"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// inspectOptions are the flags of kimg inspect.
type inspectOptions struct {
	*app
	kind, format string
	raw, config  bool
}

func newInspect(a *app) *cobra.Command {
	o := &inspectOptions{app: a}
	cmd := &cobra.Command{
		Use:   "inspect [flags] CTR|IMAGE",
		Short: "Print everything about a container or an image as JSON",
		Long: `Print everything about a container or an image as JSON. A name that both have means the container. --raw and --config print the
documents of an image byte for byte; of a container they print those of the image it was made from.`,
		Example: "  kimg inspect alpine\n  kimg inspect --type image --raw alpine | sha256sum\n  kimg inspect --format '{{.OCI.Config.Cmd}}' CTR",
		Args:    args(1, 1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.StringVarP(&o.kind, "type", "t", "", "what to look for: `image` or container")
	f.StringVarP(&o.format, "format", "f", "", "print through a Go `template`")
	f.BoolVar(&o.raw, "raw", false, "print the manifest as it is")
	f.BoolVar(&o.config, "config", false, "print the configuration as it is")
	return cmd
}

func (o *inspectOptions) check([]string) error {
	switch o.kind {
	case "", "image", "container":
	case "remote":
		return kimg.Errorf(kimg.ErrUnsupported, "--type", "remote images are not supported")
	default:
		return usagef("--type", "%s is neither image nor container", kimg.Quote(o.kind))
	}
	if o.raw && o.config || (o.raw || o.config) && o.format != "" {
		return usagef("inspect", "only one of --raw, --config and --format")
	}
	_, err := parseTemplate(o.format)
	return err
}

func (o *inspectOptions) run(ctx context.Context, st *store.Store, args []string) error {
	if o.kind != "image" {
		c, err := st.Container(ctx, args[0])
		if err == nil {
			return o.container(ctx, st, c)
		}
		if o.kind != "" || kimg.ClassOf(err) != kimg.ErrNotFound {
			return err
		}
	}
	img, err := image(ctx, st, args[0])
	if o.kind == "" && kimg.ClassOf(err) == kimg.ErrNotFound {
		return kimg.Errorf(kimg.ErrNotFound, args[0], "neither a container nor an image")
	}
	if err != nil {
		return err
	}
	return o.image(ctx, st, img)
}

// print prints the result in the form that was asked for.
func (o *inspectOptions) print(v any) error {
	if o.format == "" {
		return o.printJSON(v)
	}
	return printTemplate(o.app, o.format, []any{v})
}

// document prints a document byte for byte.
func (o *inspectOptions) document(data []byte) error {
	_, _ = o.stdout.Write(data) // the buffer keeps the error
	return nil
}

// inspectedImage is everything about an image.
type inspectedImage struct {
	Type string `json:"type"` // image
	imageJSON
	Digests      []digest.Digest   `json:"digests"` // of every manifest that is kept
	ManifestType string            `json:"manifestType"`
	Format       convert.Format    `json:"format"`
	Annotations  map[string]string `json:"annotations"`
	Layers       []storeLayerJSON  `json:"layers"` // base first
	OCI          *ispec.Image      `json:"oci,omitempty"`
	Docker       *docker.Image     `json:"docker,omitempty"`
	Manifest     json.RawMessage   `json:"manifest,omitempty"`
}

// storeLayerJSON is one layer of the store.
type storeLayerJSON struct {
	ID     string        `json:"id"`
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // of the uncompressed tar, in bytes; -1 when unknown
}

func (o *inspectOptions) image(ctx context.Context, st *store.Store, img *store.Image) error {
	manifest, mediaType, err := img.Manifest(ctx)
	if err != nil {
		return err
	}
	if o.raw {
		return o.document(manifest)
	}
	v := inspectedImage{Type: "image", Digests: orEmpty(img.Digests), ManifestType: mediaType, Manifest: manifest, Annotations: map[string]string{}}
	config, err := img.Config(ctx)
	switch {
	case o.config && err != nil:
		return err
	case o.config:
		return o.document(config)
	case err == nil:
		if err := v.read(manifest, config); err != nil {
			return kimg.Wrap(img.ID, err)
		}
	case kimg.ClassOf(err) != kimg.ErrUnsupported: // a list or an old format has no configuration to show
		return err
	}
	layers, err := img.Layers(ctx)
	if err != nil {
		return err
	}
	v.Layers = []storeLayerJSON{}
	for _, l := range layers {
		v.Layers = append(v.Layers, storeLayerJSON(l))
	}
	described, err := describe(ctx, st, img)
	if err != nil {
		return err
	}
	v.imageJSON = described[0]
	return o.print(v)
}

// read fills in what the documents say.
func (v *inspectedImage) read(manifest, config []byte) error {
	view, err := convert.ParseManifest(manifest)
	if err != nil {
		return err
	}
	c, err := convert.Parse(convert.Document{Format: view.Format, Manifest: manifest, Config: config}, nil)
	if err != nil {
		return err
	}
	oci, dock := c.OCI(), c.Docker()
	v.Format, v.OCI, v.Docker = view.Format, &oci, &dock
	if view.Annotations != nil {
		v.Annotations = view.Annotations
	}
	return nil
}

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
	CreatedBy   string            `json:"createdBy"`
	Annotations map[string]string `json:"annotations"`
	OCI         *ispec.Image      `json:"oci,omitempty"`
	Docker      *docker.Image     `json:"docker,omitempty"`
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
		Type: "container", Names: orEmpty(c.Names), Layer: c.LayerID, Created: c.Created, Foreign: c.Foreign,
		containerJSON: containerJSON{ID: c.ID, Name: c.Name, ImageID: c.ImageID}, Annotations: map[string]string{},
		UIDMap: idRanges(c.UIDMap), GIDMap: idRanges(c.GIDMap),
	}
	if path, n, err := c.Mounted(); err == nil && n > 0 {
		v.MountPoint, v.Mounts = path, n
	}
	if settings != nil {
		oci, dock := settings.Config().OCI(), settings.Config().Docker()
		v.Image, v.CreatedBy, v.OCI, v.Docker = settings.ImageName(), settings.CreatedBy(), &oci, &dock
		if a := settings.Annotations(); a != nil {
			v.Annotations = a
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
