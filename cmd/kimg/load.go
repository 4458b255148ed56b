package main

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
)

// loadOptions are the flags of kimg load.
type loadOptions struct {
	*app
	file, platform, progress string
	quiet                    bool
	keep                     keepFlags

	options convertimage.LoadOptions
	target  *ispec.Platform
}

func newLoad(a *app) *cobra.Command {
	o := &loadOptions{app: a}
	cmd := &cobra.Command{
		Use:   "load [flags]",
		Short: "Load the images of an archive into the store",
		Long: `Load all images of an archive into the store, with their names and all their platforms: an OCI layout, what docker save writes,
also before Docker 1.10, or both in one; compressed or not; a tar, or a directory. Everything is verified, and all of it is there
afterwards, or nothing. An image without a good name is known by its ID. The signature policy must accept every image.`,
		Example: "  kimg load <app.tar.zst\n  kimg load -i layout --platform linux/arm64\n  podman save app | kimg load",
		Args:    args(0, 0),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "input", "i", "", "load from a `file` or directory (default: standard input)")
	f.StringVar(&o.platform, "platform", "", "of an index, take the image for `os/arch[/variant]` (default: all)")
	f.BoolVar(&o.options.Strict, "strict", false, "fail when one of the images cannot be read, instead of warning")
	o.keep.register(f, "keep compressed layers as they came, so that the images can leave the store as they are")
	progressFlags(f, &o.progress, &o.quiet)
	return cmd
}

func (o *loadOptions) fromStdin() bool { return o.file == "" || o.file == "-" }

func (o *loadOptions) check([]string) (err error) {
	if o.fromStdin() && terminal(o.in) {
		return usagef("--input", "standard input is a terminal; use -i FILE")
	}
	o.target, err = parsePlatform(o.platform)
	return err
}

func (o *loadOptions) run(ctx context.Context, st *store.Store, _ []string) error {
	var loaded []convertimage.Loaded
	err := o.oneStep("load", "", o.progress, o.quiet, func(s *step) (err error) {
		c := convertimage.New(convertimage.Options{
			Platform: o.target, Sys: o.systemContext(), KeepBlobs: o.keep.either(), Recipes: o.keep.recipes, Jobs: o.flags.jobs, Logger: o.log, Progress: s.layer,
			Store: func() (*store.Store, error) { return st, nil },
		})
		defer c.Close()
		if o.fromStdin() {
			loaded, err = c.LoadFrom(ctx, o.stream(ctx), o.options)
		} else {
			loaded, err = c.Load(ctx, o.file, o.options)
		}
		return err
	})
	if err != nil {
		return err
	}
	if o.flags.json {
		list := make([]loadedJSON, len(loaded))
		for i, l := range loaded {
			list[i] = newLoadedJSON(l)
		}
		return o.printJSON(map[string]any{"images": list})
	}
	for _, l := range loaded {
		for _, name := range l.Familiar() {
			o.println("Loaded image: " + name)
		}
		if len(l.Names) == 0 {
			o.println("Loaded image ID: sha256:" + l.ID)
		}
	}
	return nil
}

// stream is standard input: a file as it is, anything else so that an interrupt ends the waiting.
func (o *loadOptions) stream(ctx context.Context) io.ReadCloser {
	if info, err := o.in.Stat(); err == nil && info.Mode().IsRegular() {
		return o.in
	}
	return interruptible(ctx, o.in)
}

// loadedJSON is one image that was loaded, or an index.
type loadedJSON struct {
	Names     []string             `json:"names"`
	ID        string               `json:"id"`
	Digest    digest.Digest        `json:"digest"`
	Index     bool                 `json:"index"`
	Manifests []loadedManifestJSON `json:"manifests"` // of the index; of an image itself alone
}

type loadedManifestJSON struct {
	Digest   digest.Digest `json:"digest"`
	Platform string        `json:"platform"` // empty: no image
	ID       string        `json:"id"`       // empty: not an image of the store
	Data     bool          `json:"data"`     // kept, not unpacked
	Unpacked int           `json:"unpacked"`
	Skipped  int           `json:"skipped"`
	Error    string        `json:"error"` // empty: it is there
}

func newLoadedJSON(l convertimage.Loaded) loadedJSON {
	j := loadedJSON{Names: orEmpty(l.Names), ID: l.ID, Digest: l.Digest, Index: l.IsIndex, Manifests: []loadedManifestJSON{}}
	for _, m := range l.Instances {
		one := loadedManifestJSON{Digest: m.Digest, Platform: m.Platform, ID: m.ID, Data: m.Data, Unpacked: m.Unpacked, Skipped: m.Skipped}
		if m.Err != nil {
			one.Error = escape(m.Err.Error())
		}
		j.Manifests = append(j.Manifests, one)
	}
	return j
}
