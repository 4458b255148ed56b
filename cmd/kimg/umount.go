package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg/store"
)

// umountOptions are the flags of kimg umount.
type umountOptions struct {
	*app
	all, image bool
}

func newUmount(a *app) *cobra.Command {
	o := &umountOptions{app: a}
	cmd := &cobra.Command{
		Use:     "umount [flags] CTR…|--all",
		Aliases: []string{"unmount"},
		Short:   "Unmount containers",
		Long:    "Unmount containers and print the name of each. One that is not mounted is passed over.",
		Example: "  kimg umount CTR\n  kimg umount --all\n  kimg umount --image alpine",
		Args:    args(0, -1),
		RunE:    a.withStore(keptNamespace, o.check, o.run),
	}
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "unmount every container")
	cmd.Flags().BoolVar(&o.image, "image", false, "unmount images")
	return cmd
}

func (o *umountOptions) check(args []string) error {
	if o.all && o.image {
		return usagef("--all", "means containers and cannot be used together with --image")
	}
	return namesOrAll("umount", o.all, args)
}

// unmountable is a container or an image.
type unmountable interface{ Unmount(context.Context) error }

func (o *umountOptions) run(ctx context.Context, st *store.Store, args []string) error {
	names, list, err := o.find(ctx, st, args)
	if err != nil {
		return err
	}
	done := []string{}
	for i, m := range list {
		if err := m.Unmount(ctx); err != nil {
			return err
		}
		done = append(done, names[i])
	}
	return o.printNames("unmounted", done)
}

// find looks everything up before anything is unmounted. Containers that are not mounted are left out.
func (o *umountOptions) find(ctx context.Context, st *store.Store, args []string) (names []string, list []unmountable, err error) {
	add := func(c *store.Container) error {
		_, n, err := c.Mounted()
		if err == nil && n > 0 {
			names, list = append(names, c.Name), append(list, c)
		}
		return err
	}
	if o.all {
		all, err := st.Containers(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range all {
			if err := add(c); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, arg := range args {
		if o.image {
			img, err := image(ctx, st, arg)
			if err != nil {
				return nil, nil, err
			}
			names, list = append(names, arg), append(list, img)
			continue
		}
		c, err := st.Container(ctx, arg)
		if err == nil {
			err = add(c)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return names, list, nil
}
