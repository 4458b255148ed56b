package main

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	convertimage "github.com/kimg/kimg/convert/image"
)

// validateOptions are the flags of kimg validate.
type validateOptions struct {
	*app
	fast   bool
	remote registryFlags
}

func newValidate(a *app) *cobra.Command {
	o := &validateOptions{app: a}
	cmd := &cobra.Command{
		Use:   "validate [flags] REF…",
		Short: "Check images anywhere, in every byte",
		Long: `Check images anywhere, in every byte: documents, digests, sizes, diff IDs, and labels against what is there. Of an index, every
image; of a chart or another artifact, its manifest and the digest and size of every blob. REF is an image of the store, or a
reference as for kimg convert. Each image is one line, each problem another; with any problem the exit code is 1.`,
		Example: "  kimg validate oci:/srv/layout:1 docker://registry.example/app:1\n  kimg validate --fast --json base:1",
		Args:    args(1, -1),
		RunE:    o.run,
	}
	cmd.Flags().BoolVar(&o.fast, "fast", false, "look whether blobs are there with their sizes, and do not read them")
	o.remote.register(cmd, "", "registries")
	return cmd
}

func (o *validateOptions) run(cmd *cobra.Command, list []string) error {
	refs, err := references(list)
	if err != nil {
		return err
	}
	options := convertimage.Options{Jobs: o.flags.jobs, Logger: o.log}
	if options.Sys, options.Retries, err = o.remote.system(o.app); err != nil {
		return err
	}
	return o.withConverter(options, refs, func(c *convertimage.Converter) error {
		var found []validatedJSON
		var first error // of the problems; it gives the class
		bad := 0
		for i, ref := range refs {
			v, err := c.Validate(cmd.Context(), ref, o.fast)
			if err != nil {
				return err
			}
			j := newValidatedJSON(v)
			j.Ref = list[i]
			found = append(found, j)
			if problem := firstProblem(v); problem != nil {
				bad++
				if first == nil {
					first = kimg.Wrap(list[i], problem)
				}
			}
			if !o.flags.json {
				o.print(j, list[i])
			}
		}
		if o.flags.json {
			if err := o.printJSON(map[string]any{"images": found}); err != nil {
				return err
			}
		}
		if bad > 1 {
			return kimg.Errorf(kimg.ClassOf(first), "validate", "%d of %d images are not valid; the first: %w", bad, len(refs), first)
		}
		return first
	})
}

// firstProblem returns the first problem of an image or of one in its index, nil when it is valid.
func firstProblem(v convertimage.Validation) error {
	if len(v.Problems) > 0 {
		return v.Problems[0]
	}
	for _, one := range v.Images {
		if err := firstProblem(one); err != nil {
			return err
		}
	}
	return nil
}

// validatedJSON is one image that was looked at.
type validatedJSON struct {
	Ref          string          `json:"ref,omitempty"`
	Platform     string          `json:"platform,omitempty"` // of an image of an index
	Valid        bool            `json:"valid"`
	Format       convert.Format  `json:"format"`
	NoImage      string          `json:"noImage,omitempty"` // why it is none
	Digest       digest.Digest   `json:"digest"`
	ConfigDigest digest.Digest   `json:"configDigest,omitempty"`
	DiffIDs      []digest.Digest `json:"diffIDs"`
	Size         int64           `json:"size"`
	Problems     []imageProblem  `json:"problems"`
	Images       []validatedJSON `json:"images,omitempty"` // of an index
}

// imageProblem is one thing that is wrong with an image.
type imageProblem struct {
	Class   kimg.Class `json:"class"`
	Message string     `json:"message"`
}

func newValidatedJSON(v convertimage.Validation) validatedJSON {
	j := validatedJSON{
		Platform: v.Platform, Valid: v.Valid(), Format: v.Format, Digest: v.Digest, ConfigDigest: v.ConfigDigest,
		DiffIDs: orEmpty(v.DiffIDs), Size: v.Size, Problems: []imageProblem{},
	}
	if v.NoImage != nil {
		j.NoImage = kimg.Line(v.NoImage)
	}
	for _, p := range v.Problems {
		j.Problems = append(j.Problems, imageProblem{kimg.ClassOf(p), kimg.Line(p)})
	}
	for _, one := range v.Images {
		j.Images = append(j.Images, newValidatedJSON(one))
	}
	return j
}

// print shows one image, and those of an index, to people.
func (o *validateOptions) print(j validatedJSON, name string) {
	word := "valid"
	if !j.Valid {
		word = "not valid"
	}
	what := fmt.Sprintf("%s image of %d layers", j.Format, len(j.DiffIDs))
	if j.NoImage != "" {
		what = fmt.Sprintf("%s artifact (%s)", j.Format, j.NoImage)
	}
	if len(j.Images) > 0 {
		what = fmt.Sprintf("%s index of %d images", j.Format, len(j.Images))
	}
	o.println(fmt.Sprintf("%s: %s: %s, %s", name, word, what, j.Digest))
	for _, p := range j.Problems {
		o.println("  " + p.Message)
	}
	for _, one := range j.Images {
		o.print(one, name+" "+one.Platform)
	}
}
