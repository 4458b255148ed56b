package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
)

// manifestOptions are the flags of kimg manifest and its commands.
type manifestOptions struct {
	*app
	all, amend, raw bool
	remote          registryFlags
	entry           entryFlags
}

func newManifest(a *app) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "manifest",
		Short: "Make, change, show and send image indexes",
		Long: `Make, change, show and send image indexes, also called manifest lists: one name for an image on many
platforms. A list lies in the store as podman and buildah have it, and all three may change it in turn. Its images may be in
the store or elsewhere.`,
		Example: `  kimg manifest create app:1 app:amd64 docker://registry.example/app:arm64
  kimg manifest push app:1 docker://registry.example/app:1`,
	}, newManifestPush(a))
	for _, sub := range []func(*manifestOptions) *cobra.Command{
		newManifestAdd, newManifestAnnotate, newManifestCreate, newManifestExists, newManifestInspect, newManifestRemove, newManifestRm,
	} {
		cmd.AddCommand(sub(&manifestOptions{app: a}))
	}
	return cmd
}

func newManifestCreate(o *manifestOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [flags] LIST [IMAGE…]",
		Short: "Make a manifest list and print its ID",
		Long: `Make a manifest list and print its ID. IMAGE is what kimg manifest add takes. A list of Docker images is a Docker list,
any other an OCI index.`,
		Example: "  kimg manifest create app:1\n  kimg manifest create --all app:1 docker://registry.example/app:1",
		Args:    args(1, -1),
		RunE: o.withStore(anyNamespace, nil, func(ctx context.Context, st *store.Store, list []string) error {
			return o.change(ctx, st, store.ListEdit{Ref: list[0], New: !o.amend, Create: o.amend}, list[1:])
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "of an IMAGE that is an index, add all it has (default: the image for this machine)")
	f.BoolVarP(&o.amend, "amend", "a", false, "add to the list when there is one")
	o.remote.register(cmd, "", "registries")
	return cmd
}

// change adds images to a list and prints its ID.
func (o *manifestOptions) change(ctx context.Context, st *store.Store, e store.ListEdit, images []string) error {
	var added []convertimage.Entry
	for _, text := range images {
		entries, err := o.entries(ctx, st, text)
		if err != nil {
			return err
		}
		added = append(added, entries...)
	}
	e.Edit = func(index []byte) (rec store.ListRecord, err error) {
		rec.Index, rec.Instances, rec.Data = index, map[digest.Digest]string{}, map[digest.Digest][]byte{}
		for _, d := range added {
			maps.Copy(rec.Data, d.Data)
			if d.Where != "" {
				rec.Instances[d.Digest] = d.Where
			}
			if rec.Index, err = o.entry.set(rec.Index, d.Descriptor); err != nil {
				return rec, err
			}
		}
		return rec, nil
	}
	return o.edit(ctx, st, e)
}

// edit changes a list and prints its ID.
func (o *manifestOptions) edit(ctx context.Context, st *store.Store, e store.ListEdit) error {
	list, err := st.EditList(ctx, e)
	if err != nil {
		return err
	}
	if o.flags.json {
		return o.printJSON(listJSON{ID: list.ID, Names: orEmpty(list.Names), Digest: list.Digest})
	}
	o.println(list.ID)
	return nil
}

// entries describes an image, in the store or anywhere.
func (o *manifestOptions) entries(ctx context.Context, st *store.Store, text string) ([]convertimage.Entry, error) {
	refs, err := references([]string{text})
	if err != nil {
		return nil, err
	}
	p := convertimage.Options{Single: !o.all, Store: func() (*store.Store, error) { return st, nil }, Logger: o.log}
	if p.Sys, p.Retries, err = o.remote.system(o.app); err != nil {
		return nil, err
	}
	c := convertimage.New(p)
	entries, err := c.Entries(ctx, refs[0])
	return entries, joined(err, c.Close())
}

func newManifestInspect(o *manifestOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect [flags] LIST|REF",
		Short: "Print a manifest list as JSON",
		Long: `Print a manifest list as JSON. REF is docker://NAME, oci:PATH[:NAME] or any other place kimg copy knows; then no store
is touched. Of what is no list the manifest is printed. --json says for each entry of a list in the store which image it is,
where it is when it is not in the store, and what is missing of it.`,
		Example: "  kimg manifest inspect app:1\n  kimg manifest inspect --raw docker://registry.example/app:1 | sha256sum",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, list []string) error {
			if isReference(list[0]) {
				return o.inspectElsewhere(cmd.Context(), list[0])
			}
			return o.withStore(anyNamespace, nil, o.inspect)(cmd, list)
		},
	}
	cmd.Flags().BoolVar(&o.raw, "raw", false, "print it as it is, byte for byte")
	o.remote.register(cmd, "", "the registry")
	return cmd
}

// listJSON is a manifest list.
type listJSON struct {
	ID        string           `json:"id,omitempty"` // in the store
	Names     []string         `json:"names,omitempty"`
	Digest    digest.Digest    `json:"digest"`
	MediaType string           `json:"mediaType,omitempty"`
	Manifests []listEntryJSON  `json:"manifests,omitempty"`
	Index     *json.RawMessage `json:"index,omitempty"`
}

// listEntryJSON is one entry.
type listEntryJSON struct {
	Digest    digest.Digest   `json:"digest"`
	Size      int64           `json:"size"` // of the manifest
	MediaType string          `json:"mediaType"`
	Platform  *ispec.Platform `json:"platform,omitempty"`
	ImageID   string          `json:"imageID,omitempty"`
	Elsewhere string          `json:"elsewhere,omitempty"` // a reference
	Missing   []digest.Digest `json:"missing,omitempty"`   // what the store has not of it
}

func (o *manifestOptions) inspect(ctx context.Context, st *store.Store, list []string) error {
	name, err := imageName(list[0])
	if err != nil {
		return err
	}
	img, err := st.Record(ctx, name)
	if err != nil {
		return err
	}
	data, _, err := img.Manifest(ctx)
	if err != nil || !img.IsList() || !o.flags.json {
		return o.document(data, err)
	}
	l, err := img.List(ctx)
	if err != nil {
		return err
	}
	j := listJSON{ID: img.ID, Names: orEmpty(img.Names), Digest: img.Digest, MediaType: l.MediaType, Index: (*json.RawMessage)(&data)}
	for _, e := range l.Entries {
		one := listEntryJSON{Digest: e.Digest, Size: e.Size, MediaType: e.MediaType, Platform: e.Platform, Elsewhere: e.Elsewhere, Missing: e.Missing}
		if e.Image != nil {
			one.ImageID = e.Image.ID
		}
		j.Manifests = append(j.Manifests, one)
	}
	return o.printJSON(j)
}

func (o *manifestOptions) inspectElsewhere(ctx context.Context, text string) error {
	refs, err := references([]string{text})
	if err != nil {
		return err
	}
	p := convertimage.Options{Logger: o.log}
	if p.Sys, p.Retries, err = o.remote.system(o.app); err != nil {
		return err
	}
	c := convertimage.New(p)
	defer c.Close()
	d, err := c.Inspect(ctx, refs[0])
	return o.document(d.Manifest, err)
}

// document prints a manifest.
func (o *manifestOptions) document(data []byte, err error) error {
	if err != nil {
		return err
	}
	if o.flags.json && !o.raw {
		d, err := convert.ManifestDigest(data)
		if err != nil {
			return err
		}
		return o.printJSON(listJSON{Digest: d, Index: (*json.RawMessage)(&data)})
	}
	if !o.raw {
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "    "); err != nil {
			return kimg.Errorf(kimg.ErrInvalid, "manifest", "%w", err)
		}
		data = append(b.Bytes(), '\n')
	}
	_, _ = o.stdout.Write(data) // the buffer keeps the error
	return nil
}

func newManifestExists(o *manifestOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "exists LIST",
		Short:   "Tell by the exit code whether a manifest list is in the store",
		Long:    "Tell by the exit code whether a manifest list is in the store: 0 it is, 1 it is not.",
		Example: "  kimg manifest exists app:1 || kimg manifest create app:1",
		Args:    args(1, 1),
		RunE: o.withStore(anyNamespace, nil, func(ctx context.Context, st *store.Store, list []string) error {
			img, err := st.Record(ctx, strings.TrimPrefix(list[0], "containers-storage:"))
			if kimg.ClassOf(err) == kimg.ErrNotFound || err == nil && !img.IsList() {
				return status(exitFail)
			}
			return err
		}),
	}
}

func newManifestRm(o *manifestOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "rm LIST…",
		Short: "Remove manifest lists from the store",
		Long: `Remove manifest lists from the store, as kimg rmi does, and print the ID of each. Their images stay, but for those that
kimg brought into the store with the list and that nothing else leads to.`,
		Example: "  kimg manifest rm app:1",
		Args:    args(1, -1),
		RunE: o.withStore(anyNamespace, nil, func(ctx context.Context, st *store.Store, lists []string) error {
			var ids []string
			for _, ref := range lists {
				if err := onlyList(ctx, st, ref); err != nil {
					return err
				}
			}
			for _, ref := range lists {
				d, err := st.DeleteImage(ctx, ref, false)
				if err != nil {
					return err
				}
				if d.ID != "" {
					ids = append(ids, d.ID)
				}
			}
			return o.printNames("removed", orEmpty(ids))
		}),
	}
}

// onlyList refuses what is no list.
func onlyList(ctx context.Context, st *store.Store, ref string) error {
	img, err := st.Record(ctx, ref)
	if err == nil && !img.IsList() {
		err = kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(ref, 300), "not a manifest list but one image")
	}
	return err
}
