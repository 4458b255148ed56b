package main

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/archive"
)

// saveOptions are the flags of kimg save.
type saveOptions struct {
	outFile
	format, platform, progress string
	quiet, nonDistributable    bool
	preserve                   bool

	form   archive.Form
	target *ispec.Platform
}

func newSave(a *app) *cobra.Command {
	o := &saveOptions{outFile: outFile{app: a}}
	cmd := &cobra.Command{
		Use:   "save [flags] IMAGE…",
		Short: "Write images of the store into one archive",
		Long: `Write images of the store into one archive, with the names they are given by, on standard output or into a file. It is an OCI
layout and what docker load reads at the same time; --format makes it one of the two. Of a manifest list all platforms that the
store has are written; manifest.json names the one for this machine. Layers leave as the blobs the store keeps, else
uncompressed. Equal images give equal bytes.`,
		Example: "  kimg save app:1 db:2 | ssh host kimg load\n  kimg save -o app.tar --format docker-archive app:1",
		Args:    args(1, -1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	o.register(f, "archive")
	f.StringVarP(&o.format, "format", "f", "hybrid", "`format` of the archive: hybrid, oci-archive or docker-archive")
	f.StringVar(&o.platform, "platform", "", "of a manifest list, take the image for `os/arch[/variant]` (default: all)")
	f.BoolVar(&o.nonDistributable, "nondistributable", false, "write layers that may not be distributed as well")
	f.BoolVar(&o.preserve, "preserve-digests", false, "refuse rather than change a digest")
	progressFlags(f, &o.progress, &o.quiet)
	return cmd
}

func (o *saveOptions) check([]string) (err error) {
	if err = o.checkTerminal(); err != nil {
		return err
	}
	if o.form, err = oneOf("--format", o.format, map[string]archive.Form{
		"hybrid": archive.Hybrid, "oci-archive": archive.OCI, "docker-archive": archive.Docker,
	}); err != nil {
		return err
	}
	if o.preserve && o.form == archive.Docker {
		return usagef("--preserve-digests", "cannot be used together with --format docker-archive")
	}
	o.target, err = parsePlatform(o.platform)
	return err
}

func (o *saveOptions) run(ctx context.Context, st *store.Store, refs []string) error {
	for i, ref := range refs {
		name, err := imageName(ref)
		if err != nil {
			return err
		}
		refs[i] = name
	}
	var made []convertimage.Saved
	err := o.oneStep("save", o.file, o.progress, o.quiet, func(s *step) error {
		c := convertimage.New(convertimage.Options{
			Platform: o.target, Jobs: o.flags.jobs, Logger: o.log, Progress: s.layer,
			Store: func() (*store.Store, error) { return st, nil },
		})
		defer c.Close()
		return o.write(func(w io.Writer) (err error) {
			made, err = c.Save(ctx, refs, w, convertimage.SaveOptions{Form: o.form, NonDistributable: o.nonDistributable, PreserveDigests: o.preserve})
			return err
		})
	})
	if err != nil || o.toStdout() || !o.flags.json {
		return err
	}
	list := make([]savedJSON, len(made))
	for i, m := range made {
		list[i] = newSavedJSON(m)
	}
	return o.printJSON(map[string]any{"images": list})
}

// savedJSON is one image in an archive.
type savedJSON struct {
	Names     []string            `json:"names"`
	ID        string              `json:"id"`
	Digest    digest.Digest       `json:"digest"`    // in the archive
	Platforms []savedPlatformJSON `json:"platforms"` // of an index; of an image itself alone
	Partial   bool                `json:"partial"`
	Missing   []digest.Digest     `json:"missing"`
	Report    []reportJSON        `json:"report"`
}

type savedPlatformJSON struct {
	Platform string          `json:"platform"` // empty of an image that is in no index
	Digest   digest.Digest   `json:"digest"`
	Config   digest.Digest   `json:"configDigest"`
	Layers   []digest.Digest `json:"layers"`
}

func newSavedJSON(s convertimage.Saved) savedJSON {
	j := savedJSON{
		Names: orEmpty(s.Names), ID: s.ID, Digest: s.NewDigest, Platforms: []savedPlatformJSON{}, Partial: s.Partial, Missing: orEmpty(s.Missing),
		Report: newReport(s.Report),
	}
	all := s.Images
	if s.ConfigDigest != "" {
		all = []convertimage.Result{s.Result}
	}
	for _, r := range all {
		p := savedPlatformJSON{Platform: r.Platform, Digest: r.NewDigest, Config: r.ConfigDigest, Layers: []digest.Digest{}}
		for _, l := range r.Layers {
			p.Layers = append(p.Layers, l.Digest)
		}
		j.Platforms = append(j.Platforms, p)
	}
	return j
}
