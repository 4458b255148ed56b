package main

import (
	"context"

	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
)

// manifestPush are the flags of kimg manifest push.
type manifestPush struct {
	copyOptions
	images, remove bool
	dst            types.ImageReference
}

func newManifestPush(a *app) *cobra.Command {
	o := &manifestPush{copyOptions: copyOptions{app: a}}
	cmd := &cobra.Command{
		Use:   "push [flags] LIST [DST]",
		Short: "Send a manifest list with its images to a registry, or anywhere else",
		Long: `Send a manifest list with its images to DST, docker://NAME, dir:PATH, oci:PATH[:NAME] or oci-archive:FILE[:NAME], or a
name in a registry; without DST to where its name says. Images that are not in the store go there from where they are;
their registries are not shown --creds and --cert-dir.
Prints the digest of the list as it is there: the same as here unless an image changes, because its layers must be
compressed, or by --format.`,
		Example: `  kimg manifest push registry.example/app:1
  kimg manifest push --rm --digestfile digest app:1 docker://registry.example/app:1
  kimg manifest push --all=false app:1 docker://registry.example/app:1`,
		Args: args(1, 2),
		RunE: a.withStore(anyNamespace, o.check, o.run),
	}
	o.cmd = cmd
	f := cmd.Flags()
	f.BoolVar(&o.images, "all", true, "send the images as well; else they must be there")
	f.StringVarP(&o.format, "format", "f", "", "`format` of list and images: oci or v2s2 (default: as they are)")
	f.BoolVar(&o.remove, "rm", false, "remove the list from the store when it is there")
	o.registerSending(cmd)
	o.sides.both.register(cmd, "", "the registry of DST")
	return cmd
}

func (o *manifestPush) check(list []string) error {
	o.all = true
	if err := o.copyOptions.check(); err != nil {
		return err
	}
	if o.format == "v2s1" {
		return usagef("--format", "there are no lists of format v2s1")
	}
	var err error
	if o.dst, err = inRegistry(list[len(list)-1]); err != nil {
		return err
	}
	switch o.dst.Transport().Name() {
	case "docker-archive", "containers-storage":
		return kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(list[len(list)-1], 300), "holds no manifest list")
	}
	p, from := &o.options, o.systemContext()
	if p.DestinationSys, p.Retries, err = o.sides.both.system(o.app); err != nil {
		return err
	}
	// Images that are elsewhere may be anybody's: logins and keys that were given here are not for them.
	from.AuthFilePath, from.DockerInsecureSkipTLSVerify = p.DestinationSys.AuthFilePath, p.DestinationSys.DockerInsecureSkipTLSVerify
	p.Sys, p.Whole = from, true
	return nil
}

func (o *manifestPush) run(ctx context.Context, st *store.Store, list []string) error {
	name, err := imageName(list[0])
	if err == nil {
		err = onlyList(ctx, st, name)
	}
	if err != nil {
		return err
	}
	o.options.Store = func() (*store.Store, error) { return st, nil }
	err = o.sent(ctx, "push", []string{name, list[len(list)-1]}, func(c *convertimage.Converter) (convertimage.Result, error) {
		return o.send(ctx, st, c, name)
	})
	if err == nil && o.remove {
		_, err = st.DeleteImage(ctx, name, false)
	}
	return err
}

// send sends the list with its images, or alone.
func (o *manifestPush) send(ctx context.Context, st *store.Store, c *convertimage.Converter, name string) (convertimage.Result, error) {
	if o.images {
		return c.Convert(ctx, convertimage.InStore(name), o.dst)
	}
	img, err := st.Record(ctx, name)
	if err != nil {
		return convertimage.Result{}, err
	}
	index, _, err := img.Manifest(ctx)
	if err != nil {
		return convertimage.Result{}, err
	}
	return c.PutIndex(ctx, index, o.dst)
}
