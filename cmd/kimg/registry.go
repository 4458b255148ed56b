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
	flags registryFlags
}

// ask speaks to the registry.
func (o *registryOptions) ask(do func(*convertimage.Converter) error) (err error) {
	p := convertimage.Options{Logger: o.log}
	if p.Sys, p.Retries, err = o.flags.system(o.app); err != nil {
		return err
	}
	return o.withConverter(p, nil, do)
}

func newListTags(a *app) *cobra.Command {
	o := &registryOptions{app: a}
	cmd := &cobra.Command{
		Use:     "list-tags [flags] REPOSITORY",
		Short:   "List the tags of a repository of a registry",
		Example: "  kimg list-tags registry.example/team/app",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, list []string) error {
			ref, err := inRegistry(list[0])
			if err != nil {
				return err
			}
			var tags []string
			err = o.ask(func(c *convertimage.Converter) error {
				tags, err = c.Tags(cmd.Context(), ref)
				return err
			})
			switch {
			case err != nil:
				return err
			case o.app.flags.json:
				return o.printJSON(map[string]any{"repository": ref.DockerReference().Name(), "tags": orEmpty(tags)})
			}
			for _, tag := range tags {
				o.println(tag)
			}
			return nil
		},
	}
	o.flags.register(cmd, "", "the registry")
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
			return o.ask(func(c *convertimage.Converter) error { return c.Delete(cmd.Context(), refs[0]) })
		},
	}
	o.flags.register(cmd, "", "the registry")
	return cmd
}

// elsewhere tells whether an image is to be shown that is not in the store.
func (o *inspectOptions) elsewhere(list []string) bool {
	return o.kind == "remote" || o.kind != "container" && !strings.HasPrefix(list[0], "containers-storage:") && isReference(list[0])
}

func isReference(text string) bool {
	refs, err := references([]string{text})
	return err != nil || !convertimage.NamesStore(refs[0]) // what is wrong with it is said by who reads it
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
	p := convertimage.Options{Logger: o.log, Platform: platform, Single: !o.raw}
	if p.Sys, p.Retries, err = o.flagsOf.system(o.app); err != nil {
		return err
	}
	c := convertimage.New(p)
	defer c.Close()
	d, err := c.Inspect(ctx, ref)
	switch {
	case err != nil:
		return err
	case o.raw:
		return o.document(d.Manifest)
	case o.config && d.Config == nil:
		return kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(text, 300), "what is of schema 1, or no image, has no configuration of an image")
	case o.config:
		return o.document(d.Config)
	}
	v := remoteImage{
		Type: "remote", Ref: text, Digest: d.Digest, Format: d.Format, Platform: d.Platform, DiffIDs: orEmpty(d.DiffIDs), Layers: []remoteLayerJSON{}, Manifest: d.Manifest,
	}
	for _, l := range d.Layers {
		v.Layers = append(v.Layers, remoteLayerJSON{l.Digest, l.Size, l.MediaType})
	}
	if d.Config != nil {
		oci, dock := d.Image.OCI(), d.Image.Docker()
		v.OCI, v.Docker = &oci, &dock
	}
	return o.print(v)
}
