package main

import (
	"context"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
)

// copyOptions are the flags of kimg copy, and of push and pull, which have some of them.
type copyOptions struct {
	*app
	cmd                           *cobra.Command
	format, compression, platform string
	level                         int
	all, preserve                 bool
	keep                          keepFlags
	unsigned                      bool
	digestFile, progress          string
	tags                          []string
	quiet                         bool
	sides                         sidesFlags

	options convertimage.Options
}

func newCopy(a *app) *cobra.Command {
	o := &copyOptions{app: a}
	cmd := &cobra.Command{
		Use:   "copy [flags] SRC DST",
		Short: "Copy an image between registries, directories, archives and the store",
		Long: `Copy an image, and print the digest of its manifest. SRC and DST are docker://NAME, dir:PATH, oci:PATH[:NAME],
oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], or an image of the store. No store is touched unless one is named.

The image stays as it is, byte for byte, unless DST, --format or --compression forces a change: docker-archive: holds other
documents, oci: holds OCI, layers of a store without their blobs are compressed. What a registry has already is not sent,
and what lies in another of its repositories is mounted. A registry in trouble is asked again; one that says when
(429) then, but after a minute at most, and five times. With --all, what is
about the image comes along from registry to registry: its referrers, and what cosign tags. Signatures that lie beside it
always do; where there is no place for them it is refused, unless --remove-signatures leaves them behind. What is no image, as a
chart, is copied as it is, but not into the store.`,
		Example: `  kimg copy --all docker://registry.example/app:1 docker://mirror.example/app:1
  kimg copy --preserve-digests docker://registry.example/app:1 oci:/srv/layout:app
  kimg copy --src-tls-verify=false --dest-creds me:secret docker://localhost:5000/app:1 docker://registry.example/app:1`,
		Args: args(2, 2),
		RunE: o.runCopy,
	}
	o.register(cmd)
	f := cmd.Flags()
	o.keep.register(f, "in the store, keep compressed layers as they came, too")
	f.StringVarP(&o.format, "format", "f", "", "`format` of the copy: oci, v2s2 or v2s1 (default: as it is)")
	o.compressing("as they are")
	f.StringArrayVar(&o.tags, "additional-tag", nil, "another `tag` of the repository of DST; may repeat")
	o.sides.register(cmd)
	return cmd
}

func newPush(a *app) *cobra.Command {
	o := &copyOptions{app: a}
	cmd := &cobra.Command{
		Use:   "push [flags] IMAGE [DST]",
		Short: "Send an image of the store to a registry, or anywhere else",
		Long: `Send an image of the store to DST, which is any place kimg copy knows, or a name in a registry; without DST to where
its name says. Prints the digest of the manifest. Layers that the registry has, in a form that is known, are not even read.`,
		Example: "  kimg push registry.example/app:1\n  kimg push --all app:1 docker://registry.example/app:1\n  kimg push app:1 oci-archive:app.tar",
		Args:    args(1, 2),
		RunE:    o.runPush,
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "f", "", "`format` of the copy: oci, v2s2 or v2s1 (default: as it is)")
	o.compressing("as they came, else gzip")
	f.StringArrayVar(&o.tags, "additional-tag", nil, "another `tag` of the repository of DST; may repeat")
	o.sides.both.register(cmd, "", "the registry")
	return cmd
}

// compressing registers the flags about compression.
func (o *copyOptions) compressing(otherwise string) {
	f := o.cmd.Flags()
	f.StringVar(&o.compression, "compression", "", "compress layers with `algorithm` none, gzip, or zstd or zstd:chunked, which only images of format oci have (default: "+otherwise+")")
	f.IntVar(&o.level, "compression-level", 0, "`level` of that: gzip 0 to 9, zstd 1 to 22 (default: the algorithm's)")
}

// register registers the flags that copy, push and pull have.
func (o *copyOptions) register(cmd *cobra.Command) {
	o.cmd = cmd
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "of an index, take all images and what else it has, and what a registry has about them (default: the image for this machine)")
	f.StringVar(&o.platform, "platform", "", "of an index, take the image for `os/arch[/variant]`")
	o.registerSending(cmd)
}

// registerSending registers those that kimg manifest push has as well.
func (o *copyOptions) registerSending(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.preserve, "preserve-digests", false, "refuse rather than change a digest")
	f.BoolVar(&o.unsigned, "remove-signatures", false, "leave signatures behind, which else go along, or it is refused")
	f.StringVar(&o.digestFile, "digestfile", "", "write the digest of the manifest to a `file`")
	f.StringVar(&o.progress, "progress", "auto", progressUsage)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing")
}

// check turns the flags into options of the library.
func (o *copyOptions) check() (err error) {
	if o.all && o.platform != "" {
		return usagef("--platform", "cannot be used together with --all")
	}
	p := &o.options
	*p = convertimage.Options{
		Keep: true, Single: !o.all, Referrers: o.all, PreserveDigests: o.preserve, KeepBlobs: o.keep.either(), Recipes: o.keep.recipes, AdditionalTags: o.tags,
		RemoveSignatures: o.unsigned, Jobs: o.flags.jobs, NoSync: o.flags.noSync, Logger: o.log,
	}
	if p.Format, err = formatWord(o.format); err != nil {
		return err
	}
	if p.Compression, p.Level, err = parseCompression(o.cmd, o.compression, o.level); err != nil {
		return err
	}
	if strings.HasPrefix(o.compression, "zstd") && p.Format != "" && p.Format != convert.OCI {
		return usagef("--compression", "%s is for images of format oci", o.compression)
	}
	if o.preserve && (p.Compression != "" || p.Format != "") {
		return usagef("--preserve-digests", "cannot be used together with --format and --compression")
	}
	if p.Platform, err = parsePlatform(o.platform); err != nil {
		return err
	}
	for _, tag := range o.tags {
		if !reference.TagRegexp.MatchString(tag) || reference.TagRegexp.FindString(tag) != tag {
			return usagef("--additional-tag", "%s is not a tag", kimg.Quote(tag))
		}
	}
	return nil
}

// keepFlags say what a store keeps of compressed layers beside their files.
type keepFlags struct{ blobs, recipes bool }

func (k *keepFlags) register(f *pflag.FlagSet, blobs string) {
	f.BoolVar(&k.blobs, "keep-blobs", false, blobs)
	f.BoolVar(&k.recipes, "keep-recipes", false, "as --keep-blobs, but only how a blob is made again where that is proven; takes a compression of each layer")
}

func (k *keepFlags) either() bool { return k.blobs || k.recipes } // recipes are a way to keep blobs

// formatWord finds what a format of images is called.
func formatWord(word string) (convert.Format, error) {
	return oneOf("--format", word, map[string]convert.Format{
		"": "", "oci": convert.OCI, "v2s2": convert.DockerV2S2, "docker": convert.DockerV2S2, "v2s1": convert.DockerV2S1,
	})
}

func (o *copyOptions) runCopy(cmd *cobra.Command, list []string) error {
	err := o.check()
	if err != nil {
		return err
	}
	refs, err := references(list)
	if err != nil {
		return err
	}
	if err = o.sides.tell(o.app, &o.options); err != nil {
		return err
	}
	return o.move(cmd.Context(), "copy", refs[0], refs[1], list)
}

func (o *copyOptions) runPush(cmd *cobra.Command, list []string) error {
	err := o.check()
	if err != nil {
		return err
	}
	name, err := imageName(list[0])
	if err != nil {
		return err
	}
	to := name
	if len(list) > 1 {
		to = list[1]
	}
	dst, err := inRegistry(to)
	if err != nil {
		return err
	}
	if o.options.Sys, o.options.Retries, err = o.sides.both.system(o.app); err != nil {
		return err
	}
	return o.move(cmd.Context(), "push", convertimage.InStore(name), dst, []string{name, to})
}

// inRegistry parses a destination; one without a transport is the name of an image in a registry.
func inRegistry(text string) (types.ImageReference, error) {
	refs, err := references([]string{text})
	if err != nil || !convertimage.NamesStore(refs[0]) || strings.HasPrefix(text, "containers-storage:") {
		return first(refs), err
	}
	full, err := store.NormalizeName(text)
	if err != nil {
		return nil, usageError{err}
	}
	if strings.HasPrefix(full, "localhost/") {
		return nil, usagef(kimg.Quote(text), "names no registry; say where to: docker://HOST/%s", strings.TrimPrefix(full, "localhost/"))
	}
	refs, err = references([]string{"docker://" + full})
	return first(refs), err
}

func first(refs []types.ImageReference) types.ImageReference {
	if len(refs) == 0 {
		return nil
	}
	return refs[0]
}

// move copies one image and prints its digest.
func (o *copyOptions) move(ctx context.Context, name commit.Step, src, dst types.ImageReference, list []string) error {
	if len(o.tags) > 0 && dst.Transport().Name() != "docker" {
		return usagef("--additional-tag", "is for images in registries")
	}
	if at := dst.Transport().Name(); o.options.Compression != "" && (at == "docker-archive" || convertimage.NamesStore(dst)) {
		return usagef("--compression", "layers are not compressed in %s", at)
	}
	return o.withPlaces([]types.ImageReference{src, dst}, func(open func() (*store.Store, error)) error {
		o.options.Store = open
		return o.sent(ctx, name, list, func(c *convertimage.Converter) (convertimage.Result, error) { return c.Convert(ctx, src, dst) })
	})
}

// sent runs what copies an image, from list[0] to list[1], tells how far it is and prints the digest.
func (o *copyOptions) sent(ctx context.Context, name commit.Step, list []string, send func(*convertimage.Converter) (convertimage.Result, error)) error {
	file, err := newResultFile(o.digestFile, 4<<10, mayReplace)
	if err != nil {
		return err
	}
	defer file.abort()
	var r convertimage.Result
	err = o.oneStep(name, list[1], o.progress, o.quiet, func(s *step) error {
		p := o.options
		p.Progress, p.Logger = s.layer, o.log
		return o.withConverter(p, nil, func(c *convertimage.Converter) error {
			r, err = send(c)
			return err
		})
	})
	if err == nil {
		err = file.write([]byte(r.NewDigest))
	}
	if err != nil {
		return err
	}
	o.warn(ctx, "the copy does not have everything", r.Report)
	j := newConvertedJSON(r)
	j.Source, j.Destination = list[0], list[1]
	switch {
	case o.flags.json:
		return o.printJSON(j)
	case !o.quiet:
		o.println(r.NewDigest.String())
	}
	return nil
}
