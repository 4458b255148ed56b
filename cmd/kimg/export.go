package main

import (
	"cmp"
	"context"
	"io"
	"os"

	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"

	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// exportOptions are the flags of kimg export. It writes the difference to nothing.
type exportOptions struct {
	diffOptions
	platform string
	remote   registryFlags
}

func newExport(a *app) *cobra.Command {
	o := &exportOptions{diffOptions: diffOptions{outFile: outFile{app: a}, tar: true}}
	cmd := &cobra.Command{
		Use:   "export [flags] CTR|IMAGE|LAYER|REF",
		Short: "Write the whole file tree of a container, an image or a layer as a tar",
		Long: `Write the whole file tree of a container, an image or a layer of the store as an uncompressed tar, with the owners the
container sees. Nothing is mounted, unless the container maps ids or the store has a mount program. REF is an image elsewhere,
as for kimg convert: it is verified, and no store is opened; its files lie in $TMPDIR meanwhile. Equal trees give equal bytes.`,
		Example: "  kimg export -o rootfs.tar CTR\n  kimg export IMAGE | tar -C rootfs -x\n  kimg export -o rootfs.tar docker://registry.example/app:1",
		Args:    args(1, 1),
		RunE:    o.run,
	}
	o.register(cmd.Flags(), "tar")
	cmd.Flags().StringVar(&o.platform, "platform", "", "of an index, take the image for `os/arch[/variant]` (default: this machine)")
	o.remote.register(cmd, "", "the registry of REF")
	return cmd
}

func (o *exportOptions) run(cmd *cobra.Command, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	refs, err := references(args)
	if err != nil {
		return err
	}
	if !convertimage.NamesStore(refs[0]) {
		options := convertimage.Options{Platform: platform, Jobs: o.flags.jobs, Logger: o.log}
		if options.Sys, options.Retries, err = o.remote.system(o.app); err != nil {
			return err
		}
		return o.withConverter(options, nil, func(c *convertimage.Converter) error { return o.elsewhere(cmd.Context(), c, refs[0]) })
	}
	if platform != nil {
		return usagef("--platform", "an image of the store is one image")
	}
	return o.withStore(anyNamespace, nil, o.stored)(cmd, []string{refs[0].StringWithinTransport()})
}

func (o *exportOptions) stored(ctx context.Context, st *store.Store, args []string) error {
	source, err := o.find(ctx, st, args[0])
	if err != nil {
		return err
	}
	tree, err := st.Compare(ctx, nil, source, store.StackOptions{})
	if err != nil {
		return err
	}
	defer tree.Close()
	return o.writeTar(func(w io.Writer) (layerdiff.Blob, error) { return layerdiff.Write(ctx, w, tree.Stack, o.options(tree)) })
}

// elsewhere writes the tree of an image that is in no store.
func (o *exportOptions) elsewhere(ctx context.Context, c *convertimage.Converter, ref types.ImageReference) error {
	temp, err := safeopen.Nameless(cmp.Or(os.Getenv("TMPDIR"), "/var/tmp"), "kimg-export-") // /tmp is memory on many machines
	if err != nil {
		return err
	}
	defer temp.Close()
	return o.writeTar(func(w io.Writer) (layerdiff.Blob, error) { return c.WriteTree(ctx, ref, w, temp) })
}
