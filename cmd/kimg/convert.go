package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/userns"
)

// convertOptions are the flags of kimg convert.
type convertOptions struct {
	*app
	format, dockerFields, emptyLayers string
	platform                          string
	failOnLoss, exactDockerID         bool
	verifyJWS, proof, quiet           bool
	sides                             sidesFlags

	refs    []types.ImageReference // source, destination, source, …
	options convertimage.Options
}

func newConvert(a *app) *cobra.Command {
	o := &convertOptions{app: a}
	cmd := &cobra.Command{
		Use:   "convert [flags] SRC DST [SRC DST…]",
		Short: "Convert images between Docker schema 1, schema 2 and OCI",
		Long: `Convert images between Docker schema 1, schema 2 and OCI, and say what changed. SRC is dir:PATH, oci:PATH[:NAME],
oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], docker://NAME or an image of the store; DST any of these.
What several images share is read and written once.

A destination gets a whole image, checked in every byte, or stays as it was. Without --format it holds what it can: oci: and
oci-archive: OCI, docker-archive: schema 2, the others what the source is, and schema 2 when that is schema 1. A loss is a
member of a document that the new format has no place for.`,
		Example: `  kimg convert docker://registry.example/old:1 oci:/srv/layout:old
  kimg convert --format v2s2 --proof dir:legacy containers-storage:app:1
  kimg convert --fail-on-loss dir:a oci:layout:a dir:b oci:layout:b`,
		Args: args(2, -1),
		RunE: o.run,
	}
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "f", "", "`format` of the result: oci, v2s2 or v2s1 (default: what DST holds)")
	f.StringVar(&o.dockerFields, "docker-fields", "keep", "`what` to do with members of the configuration that OCI does not define: keep or drop")
	f.BoolVar(&o.failOnLoss, "fail-on-loss", false, "refuse when anything would be lost")
	f.StringVar(&o.emptyLayers, "empty-layers", "flag", "take layers of schema 1 for empty by their `sign`: flag or content")
	f.BoolVar(&o.exactDockerID, "exact-docker-id", false, "drop from old schema 1 images what Docker drops, for its image ID")
	f.BoolVar(&o.verifyJWS, "verify-jws", false, "verify the signatures inside schema 1 manifests; refuse unsigned ones")
	f.BoolVar(&o.proof, "proof", false, "prove that the file tree is the same before and after")
	f.StringVar(&o.platform, "platform", "", "of an index, take the image for `os/arch[/variant]` (default: all)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing but the new digest")
	o.sides.register(cmd)
	return cmd
}

// check turns flags and references into the options of the library.
func (o *convertOptions) check(list []string) (err error) {
	if len(list)%2 != 0 {
		return usagef("convert", "every source needs a destination")
	}
	p := &o.options
	*p = convertimage.Options{
		FailOnLoss: o.failOnLoss, VerifyJWS: o.verifyJWS, Proof: o.proof,
		Convert: convert.Options{ExactDockerID: o.exactDockerID}, Jobs: o.flags.jobs, NoSync: o.flags.noSync, Logger: o.log,
	}
	if p.Format, err = formatWord(o.format); err != nil {
		return err
	}
	if err = o.sides.tell(o.app, p); err != nil {
		return err
	}
	if p.Convert.DockerFields, err = oneOf("--docker-fields", o.dockerFields, map[string]convert.Keep{
		"keep": convert.DockerKeep, "drop": convert.DockerDrop,
	}); err != nil {
		return err
	}
	if p.Convert.EmptyLayers, err = oneOf("--empty-layers", o.emptyLayers, map[string]convert.Mode{
		"flag": convert.EmptyFlag, "content": convert.EmptyContent,
	}); err != nil {
		return err
	}
	if p.Platform, err = parsePlatform(o.platform); err != nil {
		return err
	}
	o.refs, err = references(list)
	return err
}

// oneOf finds what a word means.
func oneOf[T any](flag, word string, meanings map[string]T) (T, error) {
	v, ok := meanings[word]
	if !ok {
		return v, usagef(flag, "%s is not one of its words", kimg.Quote(word))
	}
	return v, nil
}

// references parses image references. What is no reference is wrong usage.
func references(list []string) ([]types.ImageReference, error) {
	refs := make([]types.ImageReference, len(list))
	for i, text := range list {
		var err error
		if refs[i], err = convertimage.Parse(text); kimg.ClassOf(err) == kimg.ErrInvalid {
			return nil, usageError{err}
		} else if err != nil {
			return nil, err
		}
	}
	return refs, nil
}

// systemContext is what the image library is to know of the global flags, and of the variables that podman and skopeo
// know as well.
func (a *app) systemContext() *types.SystemContext {
	if dir := userns.RuntimeDir(); dir != "" && os.Getenv("XDG_RUNTIME_DIR") == "" { // else it looks for logins where only root may look
		_ = os.Setenv("XDG_RUNTIME_DIR", dir)
	}
	return &types.SystemContext{
		SignaturePolicyPath: a.flags.signaturePolicy, AuthFilePath: os.Getenv("REGISTRY_AUTH_FILE"),
		SystemRegistriesConfPath: os.Getenv("CONTAINERS_REGISTRIES_CONF"),
	}
}

// withConverter runs what needs a converter.
func (a *app) withConverter(o convertimage.Options, refs []types.ImageReference, run func(*convertimage.Converter) error) error {
	return a.withPlaces(refs, func(open func() (*store.Store, error)) error {
		if open != nil {
			o.Store = open
		}
		c := convertimage.New(o)
		return joined(run(c), c.Close())
	})
}

// withPlaces runs what needs a store only when a reference names it: then it is opened, and a namespace entered; else open is nil.
func (a *app) withPlaces(refs []types.ImageReference, run func(open func() (*store.Store, error)) error) error {
	if !slices.ContainsFunc(refs, convertimage.NamesStore) {
		return run(nil)
	}
	return a.openStore(anyNamespace, func(st *store.Store) error { return run(func() (*store.Store, error) { return st, nil }) })
}

func (o *convertOptions) run(cmd *cobra.Command, list []string) error {
	if err := o.check(list); err != nil {
		return err
	}
	return o.withConverter(o.options, o.refs, func(c *convertimage.Converter) error {
		made := []convertedJSON{}
		err := o.eachPair(cmd.Context(), list, func(ctx context.Context, i int) error {
			r, err := c.Convert(ctx, o.refs[i], o.refs[i+1])
			if err != nil {
				return err
			}
			j := newConvertedJSON(r)
			j.Source, j.Destination = list[i], list[i+1]
			made = append(made, j)
			if !o.flags.json {
				o.print(j)
			}
			return nil
		})
		if o.flags.json && len(made) > 0 {
			if perr := o.printJSON(map[string]any{"images": made}); err == nil {
				err = perr
			}
		}
		return err
	})
}

// eachPair does something for every pair. One that fails does not keep the others from it: each failure is a line.
func (o *convertOptions) eachPair(ctx context.Context, list []string, do func(context.Context, int) error) error {
	failed := false
	for i := 0; i < len(list); i += 2 {
		err := do(ctx, i)
		if err == nil {
			continue
		}
		if len(list) == 2 || kimg.ClassOf(err) == kimg.ErrInterrupted {
			return err
		}
		failed = true
		o.report("convert", err)
	}
	if failed {
		return status(exitFail)
	}
	return nil
}

// convertedJSON is one image that was converted.
type convertedJSON struct {
	Source       string               `json:"source,omitempty"`
	Destination  string               `json:"destination,omitempty"`
	Platform     string               `json:"platform,omitempty"` // of an image of an index
	From         convert.Format       `json:"from"`
	To           convert.Format       `json:"to"`
	OldDigest    digest.Digest        `json:"oldDigest"`
	NewDigest    digest.Digest        `json:"newDigest"`
	ConfigDigest digest.Digest        `json:"configDigest,omitempty"`
	DiffIDs      []digest.Digest      `json:"diffIDs"`
	Layers       []convertedLayerJSON `json:"layers"`
	Report       []reportJSON         `json:"report"`
	KeyIDs       []string             `json:"keyIDs,omitempty"`
	Proof        *proofJSON           `json:"proof,omitempty"`
	Images       []convertedJSON      `json:"images,omitempty"`  // of an index
	ImageID      string               `json:"imageID,omitempty"` // in the store
}

// convertedLayerJSON is one layer at the destination.
type convertedLayerJSON struct {
	Digest       digest.Digest `json:"digest"`
	DiffID       digest.Digest `json:"diffID,omitempty"` // absent of a foreign layer
	Size         int64         `json:"size"`
	Compression  string        `json:"compression,omitempty"`
	Recompressed bool          `json:"recompressed"`
}

// proofJSON holds the digests of the merged tree.
type proofJSON struct {
	Before digest.Digest `json:"before"`
	After  digest.Digest `json:"after"`
}

func newConvertedJSON(r convertimage.Result) convertedJSON {
	j := convertedJSON{
		Platform: r.Platform, From: r.From, To: r.To, OldDigest: r.OldDigest, NewDigest: r.NewDigest, ConfigDigest: r.ConfigDigest,
		DiffIDs: orEmpty(r.DiffIDs), Layers: []convertedLayerJSON{}, Report: newReport(r.Report), KeyIDs: r.KeyIDs, ImageID: r.ImageID,
	}
	for _, l := range r.Layers {
		j.Layers = append(j.Layers, convertedLayerJSON{l.Digest, l.DiffID, l.Size, string(l.Compression), l.Recompressed})
	}
	if r.Proof != nil {
		j.Proof = &proofJSON{r.Proof.Before, r.Proof.After}
	}
	for _, one := range r.Images {
		j.Images = append(j.Images, newConvertedJSON(one))
	}
	return j
}

// print shows one conversion to people.
func (o *convertOptions) print(j convertedJSON) {
	if o.quiet {
		o.println(j.NewDigest.String())
		return
	}
	o.println(fmt.Sprintf("%s -> %s: %s -> %s", j.Source, j.Destination, j.From, j.To))
	rows := j.rows("")
	for _, one := range j.Images {
		rows = append(rows, one.rows(one.Platform+" ")...)
	}
	o.table([]string{"WHAT", "OLD", "NEW"}, rows)
}

// rows are what changed and what is at the destination. What a layer unpacks to stays the same, so that stands for the old.
func (j convertedJSON) rows(prefix string) [][]string {
	rows := [][]string{{prefix + "manifest", j.OldDigest.String(), j.NewDigest.String()}}
	if j.ConfigDigest != "" {
		rows = append(rows, []string{prefix + "config", "", j.ConfigDigest.String()})
	}
	for i, l := range j.Layers {
		what := orNone(l.Compression, "foreign")
		switch {
		case l.Recompressed && l.Compression == "none":
			what += ", unpacked"
		case l.Recompressed:
			what += ", compressed anew"
		}
		rows = append(rows, []string{fmt.Sprintf("%slayer %d (%s)", prefix, i, what), "diffID " + l.DiffID.String(), l.Digest.String()})
	}
	if j.Proof != nil {
		rows = append(rows, []string{prefix + "tree", j.Proof.Before.String(), j.Proof.After.String()})
	}
	for _, c := range j.Report {
		rows = append(rows, []string{prefix + string(c.Kind), c.Path, c.Why})
	}
	return rows
}
