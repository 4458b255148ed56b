package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/containers/storage/pkg/unshare"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// importOptions are the flags of kimg import.
type importOptions struct {
	*app
	format, message, platform string
	changes                   []string
	options                   commit.Options
	target                    ispec.Platform
}

func newImport(a *app) *cobra.Command {
	o := &importOptions{app: a}
	cmd := &cobra.Command{
		Use:   "import [flags] TAR|DIR|- [NAME]",
		Short: "Make an image of a root file system and print its ID",
		Long: `Make an image of a root file system and print its ID. The root file system is a tar, plain or compressed, a directory, or - for a
tar on standard input.`,
		Example: "  kimg import rootfs.tar.gz registry.example/base:1\n  tar -C rootfs -c . | kimg import --change 'CMD [\"/bin/sh\"]' - base",
		Args:    args(1, 2),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "f", "oci", "`format` of the image: oci or docker")
	f.StringVarP(&o.message, "message", "m", "", "`text` about the image")
	f.StringVar(&o.platform, "platform", "", "the image is for `os/arch[/variant]` (default: this machine)")
	changeFlag(f, &o.changes)
	return cmd
}

func (o *importOptions) check(list []string) error {
	format, err := parseFormat(o.format)
	if err != nil {
		return err
	}
	edits, err := instructions(o.changes)
	if err != nil {
		return err
	}
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	created, err := sourceDateEpoch()
	if err != nil {
		return err
	}
	o.target = ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if platform != nil {
		o.target = *platform
	}
	o.options = commit.Options{
		Format: format, Message: o.message, CreatedBy: "kimg import", Created: created, Change: edits.ApplyTo, Jobs: o.flags.jobs, Logger: o.log,
	}
	if len(list) > 1 {
		name, err := imageName(list[1])
		if err != nil {
			return err
		}
		o.options.Names = []string{name}
	}
	return nil
}

func (o *importOptions) run(ctx context.Context, st *store.Store, args []string) error {
	source, done, err := o.source(ctx, args[0])
	if err != nil {
		return err
	}
	defer done.Close()
	made, err := commit.Import(ctx, st, source, o.target, o.options)
	if err != nil {
		return kimg.Wrap(args[0], err)
	}
	o.tell(ctx, made)
	o.tellNobody(ctx, made)
	if o.flags.json {
		return o.printJSON(newCommitJSON(made))
	}
	o.println(made.ImageID)
	return nil
}

// overflowID is the owner the kernel shows in a user namespace for files of owners the namespace does not have.
const overflowID = 65534

// tellNobody says that owners may have been lost: in a namespace they look like nobody's, as do those that really are.
func (o *importOptions) tellNobody(ctx context.Context, made commit.Result) {
	if unshare.IsRootless() && (slices.Contains(made.Layer.UIDs, overflowID) || slices.Contains(made.Layer.GIDs, overflowID)) {
		o.log.WarnContext(ctx, "files of owners this user cannot represent are nobody's (65534) in the image; a tar keeps their owners")
	}
}

// source opens what is imported. The caller closes the second result.
func (o *importOptions) source(ctx context.Context, arg string) (store.LayerSource, io.Closer, error) {
	if arg == "-" {
		r := interruptible(ctx, o.in)
		return store.TarSource(r), r, nil
	}
	f, err := os.OpenFile(arg, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not wait for its writer
	if err != nil {
		return nil, nil, kimg.Wrap(arg, err)
	}
	info, err := f.Stat()
	switch {
	case err == nil && info.IsDir():
		return commit.Dir(arg, layerdiff.Options{Jobs: o.flags.jobs, Logger: o.log}), f, nil
	case err == nil && info.Mode().IsRegular():
		return store.TarSource(f), f, nil
	}
	f.Close()
	return nil, nil, cmp.Or(kimg.Wrap(arg, err), kimg.Errorf(kimg.ErrUnsafe, arg, "neither a file nor a directory"))
}

// interruptible returns what r holds, and stops with ctx even while a read of r, such as one of a pipe nobody writes to,
// goes on for ever. The caller closes it.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	return out
}
