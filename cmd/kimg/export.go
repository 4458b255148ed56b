package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg/store"
)

// exportOptions are the flags of kimg export. It writes the difference to nothing.
type exportOptions struct{ diffOptions }

func newExport(a *app) *cobra.Command {
	o := &exportOptions{diffOptions{app: a, tar: true}}
	cmd := &cobra.Command{
		Use:   "export [flags] CTR|IMAGE|LAYER",
		Short: "Write the whole file tree of a container, an image or a layer as a tar",
		Long: `Write the whole file tree of a container, an image or a layer of the store as an uncompressed tar, with the owners the
container sees. Nothing is mounted, unless the container maps ids or the store has a mount program. Equal trees give equal bytes.`,
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
	tree, err := st.Compare(ctx, nil, source, store.StackOptions{})
	if err != nil {
		return err
	}
	defer tree.Close()
	return o.writeTar(ctx, tree)
}
