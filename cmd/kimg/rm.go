package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// rmOptions are the flags of kimg rm.
type rmOptions struct {
	*app
	all, force bool
}

func newRm(a *app) *cobra.Command {
	o := &rmOptions{app: a}
	cmd := &cobra.Command{
		Use:   "rm [flags] CTR…|--all",
		Short: "Remove working containers",
		Long: `Remove working containers and print the ID of each. --all means those that kimg made; one that another tool made is removed
only by name and with --force, and so is one that is mounted.`,
		Example: "  kimg rm CTR\n  kimg rm --all",
		Args:    args(0, -1),
		RunE:    a.withStore(keptNamespace, o.check, o.run),
	}
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "remove every container that kimg made")
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "remove also what is mounted or was made by another tool")
	return cmd
}

func (o *rmOptions) check(args []string) error { return namesOrAll("rm", o.all, args) }

func (o *rmOptions) run(ctx context.Context, st *store.Store, args []string) error {
	list, err := o.find(ctx, st, args)
	if err != nil {
		return err
	}
	ids := []string{}
	for _, c := range list {
		if err := o.remove(ctx, c); err != nil {
			return err
		}
		ids = append(ids, c.ID)
	}
	return o.printNames("removed", ids)
}

// find looks up, and checks, everything before anything is removed.
func (o *rmOptions) find(ctx context.Context, st *store.Store, args []string) ([]*store.Container, error) {
	var list []*store.Container
	if o.all {
		all, err := st.Containers(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if !c.Foreign {
				list = append(list, c)
			}
		}
	}
	for _, arg := range args {
		c, err := st.Container(ctx, arg)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if o.force {
		return list, nil
	}
	for _, c := range list {
		if c.Foreign {
			return nil, kimg.Errorf(kimg.ErrBusy, c.Name, "another tool made this container; --force removes it all the same")
		}
		if _, n, err := c.Mounted(); err != nil {
			return nil, err
		} else if n > 0 {
			return nil, kimg.Errorf(kimg.ErrBusy, c.Name, "the container is mounted; unmount it or use --force")
		}
	}
	return list, nil
}

func (o *rmOptions) remove(ctx context.Context, c *store.Container) error {
	for o.force {
		_, n, err := c.Mounted()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := c.Unmount(ctx); err != nil {
			return err
		}
	}
	return c.Remove(ctx)
}
