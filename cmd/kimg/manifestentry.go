package main

import (
	"context"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
)

// entryFlags say what an entry of a list is for. What they do not say stays.
type entryFlags struct {
	os, arch, variant, osVersion string
	features, osFeatures         []string
	annotation                   []string

	annotations map[string]string
}

func (e *entryFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.os, "os", "", "operating `system` of the image")
	f.StringVar(&e.arch, "arch", "", "`architecture` of the image")
	f.StringVar(&e.variant, "variant", "", "`variant` of the architecture")
	f.StringVar(&e.osVersion, "os-version", "", "`version` of the operating system")
	f.StringSliceVar(&e.features, "features", nil, "`features` of the processor that the image needs, by commas")
	f.StringSliceVar(&e.osFeatures, "os-features", nil, "`features` of the operating system that the image needs, by commas")
	f.StringArrayVar(&e.annotation, "annotation", nil, "annotation `name=value` of the entry; may repeat")
}

func (e *entryFlags) check([]string) (err error) {
	e.annotations, err = annotations(e.annotation)
	return err
}

// set puts an entry into an index.
func (e *entryFlags) set(index []byte, d ispec.Descriptor) ([]byte, error) {
	var p ispec.Platform
	if d.Platform != nil {
		p = *d.Platform
	}
	for _, one := range []struct {
		to   *string
		said string
	}{{&p.OS, e.os}, {&p.Architecture, e.arch}, {&p.Variant, e.variant}, {&p.OSVersion, e.osVersion}} {
		if one.said != "" {
			*one.to = one.said
		}
	}
	if e.arch != "" && e.variant == "" && (d.Platform == nil || d.Platform.Architecture != e.arch) {
		p.Variant = "" // that of another architecture
	}
	if e.osFeatures != nil {
		p.OSFeatures = e.osFeatures
	}
	if p.OS != "" || p.Architecture != "" {
		d.Platform = &p
	}
	if len(e.annotations) > 0 {
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		maps.Copy(d.Annotations, e.annotations)
	}
	return convert.SetInIndex(index, d, e.features)
}

func newManifestAdd(o *manifestOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [flags] LIST IMAGE…",
		Short: "Add images to a manifest list and print the list's ID",
		Long: `Add images to a manifest list and print the list's ID. IMAGE is an image of the store, or docker://NAME or any other
place kimg copy knows: of such an image only manifest and configuration are read, and the list remembers where it is. The
platform is that of the image, unless flags say otherwise. An image that the list has already gets what the flags say.`,
		Example: "  kimg manifest add app:1 app:amd64\n  kimg manifest add --variant v7 app:1 docker://registry.example/app:arm",
		Args:    args(2, -1),
		RunE: o.withStore(anyNamespace, o.entry.check, func(ctx context.Context, st *store.Store, list []string) error {
			return o.change(ctx, st, store.ListEdit{Ref: list[0]}, list[1:])
		}),
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "of an IMAGE that is an index, add all it has (default: the image for this machine)")
	o.entry.register(cmd)
	o.remote.register(cmd, "", "registries")
	return cmd
}

func newManifestAnnotate(o *manifestOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "annotate [flags] LIST IMAGE",
		Short:   "Change what a manifest list says of an image, and print the list's ID",
		Long:    "Change what a manifest list says of an image, and print the list's ID. IMAGE is the digest of its manifest, or an image\nof the store.",
		Example: "  kimg manifest annotate --arch arm --variant v7 app:1 sha256:…",
		Args:    args(2, 2),
		RunE: o.withStore(anyNamespace, o.entry.check, func(ctx context.Context, st *store.Store, list []string) error {
			return o.edit(ctx, st, store.ListEdit{Ref: list[0], Edit: func(index []byte) (rec store.ListRecord, err error) {
				d, err := entryOf(ctx, st, index, list[1])
				if err == nil {
					rec.Index, err = o.entry.set(index, d)
				}
				return rec, err
			}})
		}),
	}
	o.entry.register(cmd)
	return cmd
}

func newManifestRemove(o *manifestOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "remove LIST IMAGE",
		Short: "Take an image out of a manifest list, and print the list's ID",
		Long: `Take an image out of a manifest list, with attestations about it, and print the list's ID. IMAGE is the digest of its
manifest, or an image of the store, where it stays.`,
		Example: "  kimg manifest remove app:1 sha256:…",
		Args:    args(2, 2),
		RunE: o.withStore(anyNamespace, nil, func(ctx context.Context, st *store.Store, list []string) error {
			return o.edit(ctx, st, store.ListEdit{Ref: list[0], Edit: func(index []byte) (rec store.ListRecord, err error) {
				gone, err := entryOf(ctx, st, index, list[1])
				if err == nil {
					rec.Index, err = convert.ReduceIndex(index, func(d ispec.Descriptor) bool {
						return d.Digest != gone.Digest && convert.AttestationOf(d) != gone.Digest
					})
				}
				return rec, err
			}})
		}),
	}
}

// entryOf finds an entry of an index by its digest, or by the image of the store that it is.
func entryOf(ctx context.Context, st *store.Store, index []byte, text string) (ispec.Descriptor, error) {
	v, err := convert.ParseIndex(index)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	digests := []digest.Digest{digest.Digest(text)}
	if name, err := imageName(text); err == nil {
		if img, err := st.Record(ctx, name); err == nil {
			digests = append(digests, img.Digests...)
		}
	}
	for _, d := range v.Manifests {
		if slices.Contains(digests, d.Digest) {
			return d, nil
		}
	}
	return ispec.Descriptor{}, kimg.Errorf(kimg.ErrNotFound, kimg.Escape(text, 300), "not in the manifest list")
}
