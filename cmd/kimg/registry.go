package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	convertimage "github.com/kimg/kimg/convert/image"
)

// registryOptions are the flags of commands that only speak to a registry.
type registryOptions struct {
	*app
	retry int
	flags remoteFlags
}

func (o *registryOptions) register(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.retry, "retry", 3, "ask a registry that fails for a while again, `N` times")
	o.flags.register(cmd, "", "the registry")
}

// converter speaks to the registry. The caller closes it.
func (o *registryOptions) converter() (*convertimage.Converter, error) {
	p := convertimage.Options{Sys: o.systemContext(), Logger: o.log, Retries: o.retry}
	if o.retry <= 0 {
		p.Retries = -1
	}
	return convertimage.New(p), o.flags.apply(p.Sys)
}

func newListTags(a *app) *cobra.Command {
	o := &registryOptions{app: a}
	cmd := &cobra.Command{
		Use:     "list-tags [flags] REPOSITORY",
		Short:   "List the tags of a repository of a registry",
		Example: "  kimg list-tags registry.example/team/app",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, list []string) (err error) {
			ref, err := inRegistry(list[0])
			if err != nil {
				return err
			}
			c, err := o.converter()
			if err != nil {
				return err
			}
			defer c.Close()
			tags, err := c.Tags(cmd.Context(), ref)
			if err != nil {
				return err
			}
			if o.app.flags.json {
				return o.printJSON(map[string]any{"repository": ref.DockerReference().Name(), "tags": orEmpty(tags)})
			}
			for _, tag := range tags {
				o.println(tag)
			}
			return nil
		},
	}
	o.register(cmd)
	return cmd
}

func newDelete(a *app) *cobra.Command {
	o := &registryOptions{app: a}
	cmd := &cobra.Command{
		Use:   "delete [flags] REF",
		Short: "Delete an image from a registry",
		Long: `Delete the manifest that REF, a name with a tag or a digest, leads to from its registry. Other tags of the
same manifest go with it; what no manifest names any more the registry collects when it likes. REF must be
docker://NAME: images of the store are for kimg rmi.`,
		Example: "  kimg delete docker://registry.example/app@sha256:…",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, list []string) error {
			if !strings.HasPrefix(list[0], "docker://") {
				return usagef(kimg.Quote(list[0]), "is not docker://NAME")
			}
			refs, err := references(list)
			if err != nil {
				return err
			}
			c, err := o.converter()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Delete(cmd.Context(), refs[0])
		},
	}
	o.register(cmd)
	return cmd
}

// elsewhere tells whether an image is to be shown that is not in the store.
func (o *inspectOptions) elsewhere(list []string) bool {
	return o.kind == "remote" || o.kind != "container" && !strings.HasPrefix(list[0], "containers-storage:") && isReference(list[0])
}

func isReference(text string) bool {
	refs, err := references([]string{text})
	return err == nil && !convertimage.NamesStore(refs[0])
}

// remoteImage is what is known of an image elsewhere without its layers.
type remoteImage struct {
	Type     string            `json:"type"` // remote
	Ref      string            `json:"ref"`
	Digest   digest.Digest     `json:"digest"`
	Format   convert.Format    `json:"format"`
	Platform string            `json:"platform"` // empty of an index
	DiffIDs  []digest.Digest   `json:"diffIDs"`
	Layers   []remoteLayerJSON `json:"layers"`
	OCI      *ispec.Image      `json:"oci,omitempty"`
	Docker   *docker.Image     `json:"docker,omitempty"`
	Manifest json.RawMessage   `json:"manifest"`
}

type remoteLayerJSON struct {
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"` // of the blob; -1: not known
	MediaType string        `json:"mediaType,omitempty"`
}

// remote shows an image that is not in the store.
func (o *inspectOptions) remote(ctx context.Context, text string) error {
	if err := o.checkForm(); err != nil {
		return err
	}
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	ref, err := inRegistry(text)
	if err != nil {
		return err
	}
	sys := o.systemContext()
	if err := o.flagsOf.apply(sys); err != nil {
		return err
	}
	c := convertimage.New(convertimage.Options{Sys: sys, Logger: o.log, Platform: platform, Single: !o.raw})
	defer c.Close()
	d, err := c.Inspect(ctx, ref)
	switch {
	case err != nil:
		return err
	case o.raw:
		return o.document(d.Manifest)
	case o.config && d.Config == nil:
		return kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(text, 300), "an image of schema 1 has no configuration of its own")
	case o.config:
		return o.document(d.Config)
	}
	v := remoteImage{
		Type: "remote", Ref: text, Digest: d.Digest, Format: d.Format, Platform: d.Platform, DiffIDs: orEmpty(d.DiffIDs), Layers: []remoteLayerJSON{}, Manifest: d.Manifest,
	}
	for _, l := range d.Layers {
		v.Layers = append(v.Layers, remoteLayerJSON{l.Digest, l.Size, l.MediaType})
	}
	if config, err := convert.Parse(d.Document, nil); err == nil && d.Config != nil {
		oci, dock := config.OCI(), config.Docker()
		v.OCI, v.Docker = &oci, &dock
	}
	return o.print(v)
}
