package main

import (
	"context"
	"encoding/json"

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
	kind, format, platform string
	raw, config            bool
	flagsOf                registryFlags
}

func newInspect(a *app) *cobra.Command {
	o := &inspectOptions{app: a}
	cmd := &cobra.Command{
		Use:   "inspect [flags] CTR|IMAGE|REF",
		Short: "Print everything about a container or an image as JSON",
		Long: `Print everything about a container or an image as JSON. A name that both have means the container. --raw and --config print the
documents of an image byte for byte; of a container they print those of the image it was made from.

Both are shown as Docker and as OCI see them, and under losses with what an image would lose, or have changed, in each
format. Of a container, generation counts the changes of its state, and edits lists them.

--type remote asks a registry for an image, and so does docker://NAME; any other REF that kimg copy knows is read
where it is. Of an index the image for this machine is shown, or the one for --platform; --raw without --platform
prints the index. No layer is read, and no store.`,
		Example: "  kimg inspect alpine\n  kimg inspect --type image --raw alpine | sha256sum\n  kimg inspect --format '{{.OCI.Config.Cmd}}' CTR",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, list []string) error {
			if o.elsewhere(list) {
				return o.remote(cmd.Context(), list[0])
			}
			return a.withStore(anyNamespace, o.check, o.run)(cmd, list)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.kind, "type", "t", "", "`kind` of what to look for: image, container or remote")
	f.StringVar(&o.platform, "platform", "", "of an index elsewhere, show the image for `os/arch[/variant]`")
	o.flagsOf.register(cmd, "", "the registry")
	f.StringVarP(&o.format, "format", "f", "", "print through a Go `template`")
	f.BoolVar(&o.raw, "raw", false, "print the manifest as it is")
	f.BoolVar(&o.config, "config", false, "print the configuration as it is")
	return cmd
}

func (o *inspectOptions) check([]string) error {
	switch o.kind {
	case "", "image", "container":
	default:
		return usagef("--type", "%s is none of image, container and remote", kimg.Quote(o.kind))
	}
	if o.platform != "" {
		return usagef("--platform", "is for images elsewhere than in the store")
	}
	return o.checkForm()
}

func (o *inspectOptions) checkForm() error {
	if o.raw && o.config || (o.raw || o.config) && o.format != "" {
		return usagef("inspect", "only one of --raw, --config and --format")
	}
	_, err := parseTemplate(o.format)
	return err
}

func (o *inspectOptions) run(ctx context.Context, st *store.Store, args []string) error {
	var c *store.Container
	var img *store.Image
	var err error
	switch o.kind {
	case "image":
		img, err = image(ctx, st, args[0])
	case "container":
		c, err = st.Container(ctx, args[0])
	default:
		c, img, err = containerOrImage(ctx, st, args[0])
	}
	switch {
	case err != nil:
		return err
	case c != nil:
		return o.container(ctx, st, c)
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
	Losses       lossesJSON        `json:"losses,omitempty"`
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
	if o.config {
		config, err := img.Config(ctx)
		if err != nil {
			return err
		}
		return o.document(config)
	}
	state, err := st.ImageCopyData(ctx, img.ID)
	switch {
	case err == nil:
		oci, dock := state.Config().OCI(), state.Config().Docker()
		v.Format, v.OCI, v.Docker = state.Source().Format, &oci, &dock
		if a := state.Annotations(); a != nil {
			v.Annotations = a
		}
		if v.Losses, err = losses(state); err != nil {
			return kimg.Wrap(img.ID, err)
		}
	case kimg.ClassOf(err) != kimg.ErrUnsupported: // a list has no configuration to show
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

// lossesJSON is what an image would lose, or have changed, in each format.
type lossesJSON map[convert.Format][]reportJSON

// losses asks each format that images are committed in.
func losses(state *copydata.CopyData) (lossesJSON, error) {
	all := lossesJSON{}
	for _, format := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		report, err := state.Losses(format)
		if err != nil {
			return nil, err
		}
		all[format] = newReport(report)
	}
	return all, nil
}
