package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg/layerdiff/view"
	"github.com/kimg/kimg/store"
)

// exportOptions are the flags of kimg export. It writes the difference to nothing.
type exportOptions struct{ diffOptions }

func newExport(a *app) *cobra.Command {
	o := &exportOptions{diffOptions{app: a, tar: true}}
	cmd := &cobra.Command{
		Use:   "export [flags] CTR|IMAGE",
		Short: "Write the whole file tree of a container or an image as a tar",
		Long: `Write the whole file tree of a container or an image of the store as an uncompressed tar, with the owners the container
sees. Nothing is mounted, unless the container maps ids. Equal trees give equal bytes.`,
		Example: "  kimg export -o rootfs.tar CTR\n  kimg export IMAGE | tar -C rootfs -x",
		Args:    args(1, 1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	cmd.Flags().StringVarP(&o.file, "output", "o", "", "write the tar to a `file` (default: standard output)")
	return cmd
}

func (o *exportOptions) run(ctx context.Context, st *store.Store, args []string) error {
	source, err := o.find(ctx, st, args[0])
	if err != nil {
		return err
	}
	source.stack.Base = []string{}
	if len(source.options.UIDs) == 0 && len(source.options.GIDs) == 0 {
		return o.writeTar(ctx, source)
	}
	// The layers below may have other ids on disk than the container's own directory; a mount shows one kind.
	c, err := container(ctx, st, args[0])
	if err != nil {
		return err
	}
	return c.WithMount(ctx, func(root string) error {
		source.stack = view.Stack{Plain: true, Upper: root}
		return o.writeTar(ctx, source)
	})
}
