package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// rmiOptions are the flags of kimg rmi.
type rmiOptions struct {
	*app
	all, force bool
}

func newRmi(a *app) *cobra.Command {
	o := &rmiOptions{app: a}
	cmd := &cobra.Command{
		Use:   "rmi [flags] IMAGE…|--all",
		Short: "Remove images, or names of images",
		Long: `Remove images and print the ID of each. An image that has other names too loses only the name it was called by. One that a
container is made from, or that somebody has a lease of, is not removed.`,
		Example: "  kimg rmi registry.example/app:1\n  kimg rmi --force 4f0c",
		Args:    args(0, -1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "remove every image that no container is made from and nobody has a lease of")
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "remove images with all their names")
	return cmd
}

func (o *rmiOptions) check(args []string) error { return namesOrAll("rmi", o.all, args) }

// deletedJSON is what became of one image.
type deletedJSON struct {
	Untagged []string `json:"untagged"`          // names that are gone
	ID       string   `json:"removed,omitempty"` // of the image that is gone
	Layers   []string `json:"layers"`            // ids of the layers that went with it
}

func (o *rmiOptions) run(ctx context.Context, st *store.Store, args []string) error {
	refs, err := o.find(ctx, st, args)
	if err != nil {
		return err
	}
	all := []deletedJSON{}
	for _, ref := range refs {
		d, err := st.DeleteImage(ctx, ref, o.all || o.force)
		if o.all && kimg.ClassOf(err) == kimg.ErrNotFound {
			continue // it went with the list that names it
		}
		if err != nil {
			return err
		}
		all = append(all, deletedJSON{Untagged: orEmpty(d.Untagged), ID: d.ID, Layers: orEmpty(d.Layers)})
	}
	if o.flags.json {
		return o.printJSON(map[string]any{"images": all})
	}
	for _, d := range all {
		if d.ID != "" {
			o.println(d.ID)
			continue
		}
		for _, name := range d.Untagged {
			o.println("untagged " + name)
		}
	}
	return nil
}

// find looks everything up before anything is removed.
func (o *rmiOptions) find(ctx context.Context, st *store.Store, args []string) ([]string, error) {
	containers, err := st.Containers(ctx)
	if err != nil {
		return nil, err
	}
	used := map[string]string{} // image id -> a container made from it
	for _, c := range containers {
		used[c.ImageID] = c.Name
	}
	if o.all {
		leases, err := st.Leases(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range leases {
			if l.State == store.LeaseActive {
				used[l.ImageID] = l.Name
			}
		}
		return unusedImages(ctx, st, used)
	}
	var refs []string
	for _, arg := range args {
		ref, err := imageName(arg)
		if err != nil {
			return nil, err
		}
		img, err := st.Record(ctx, ref)
		if err != nil {
			return nil, err
		}
		if user, ok := used[img.ID]; ok && (o.force || len(img.Names) < 2) {
			return nil, kimg.Errorf(kimg.ErrBusy, arg, "container %s was made from it", user)
		}
		if img.ReadOnly {
			return nil, kimg.Errorf(kimg.ErrReadOnly, arg, "lies in a read-only store")
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func unusedImages(ctx context.Context, st *store.Store, used map[string]string) ([]string, error) {
	images, err := st.Images(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, img := range images {
		if _, ok := used[img.ID]; !ok && !img.ReadOnly {
			ids = append(ids, img.ID)
		}
	}
	return ids, nil
}
