package main

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
)

// metadataRoom is the disk space that is set aside for the metadata file before the commit.
const metadataRoom = 64 << 10

func (o *commitOptions) run(ctx context.Context, st *store.Store, args []string) error {
	c, err := container(ctx, st, args[0])
	if err != nil {
		return err
	}
	iid, err := newResultFile(o.iidFile, 4<<10, mayReplace)
	if err != nil {
		return err
	}
	defer iid.abort()
	metadata, err := newResultFile(o.metadataFile, metadataRoom, mayReplace)
	if err != nil {
		return err
	}
	defer metadata.abort()
	made, err := commit.Copy(ctx, st, c.ID, o.copies, o.options, o.copying)
	o.endProgress()
	if err != nil {
		return err
	}
	result := newCommitJSON(made)
	if err := iid.write([]byte(made.ImageID)); err != nil {
		return err
	}
	if o.metadataFile != "" {
		data, err := versioned(result)
		if err == nil {
			err = metadata.write(data)
		}
		if err != nil {
			return err
		}
	}
	if !o.quiet {
		o.tell(ctx, made)
	}
	if o.flags.json {
		return o.printJSON(result)
	}
	o.println(made.ImageID)
	return nil
}

// tell says on standard error what is not in the image.
func (a *app) tell(ctx context.Context, made commit.Result) {
	for _, skip := range made.Layer.LeftOut {
		a.log.WarnContext(ctx, "left out of the image", "path", skip.Path, "reason", skip.Reason)
	}
	a.warn(ctx, "the format cannot say everything", made.Report)
}

// warn says what of a report people should know.
func (a *app) warn(ctx context.Context, message string, report convert.Report) {
	for _, change := range report {
		if change.Kind == convert.Lost || change.Kind == convert.Warning {
			a.log.WarnContext(ctx, message, "member", change.Path, "kind", string(change.Kind), "why", change.Why)
		}
	}
}

// reportJSON is something that became different in an image.
type reportJSON struct {
	Path string       `json:"path"`
	Kind convert.Kind `json:"kind"`
	Why  string       `json:"why"`
}

func newReport(report convert.Report) []reportJSON {
	list := []reportJSON{}
	for _, c := range report {
		list = append(list, reportJSON{c.Path, c.Kind, c.Why})
	}
	return list
}

// commitJSON is what a commit made. The members with dots are those that other builders write into metadata files.
type commitJSON struct {
	ID             string          `json:"id"`
	Names          []string        `json:"names"`
	ManifestDigest digest.Digest   `json:"manifestDigest"`
	ConfigDigest   digest.Digest   `json:"configDigest"`
	DiffIDs        []digest.Digest `json:"diffIDs"`
	Layer          layerJSON       `json:"layer"`
	Report         []reportJSON    `json:"report"`
	Removed        bool            `json:"removed"` // the container is gone
	Copies         []copyJSON      `json:"copies,omitempty"`

	ImageDigest   digest.Digest `json:"containerimage.digest"`
	ImageConfig   digest.Digest `json:"containerimage.config.digest"`
	ImageNameList string        `json:"image.name"`
}

// copyJSON is the image at one destination outside the store.
type copyJSON struct {
	Destination    string         `json:"destination"`
	Format         convert.Format `json:"format"`
	ManifestDigest digest.Digest  `json:"manifestDigest"`
}

func newCommitJSON(r commit.Result) commitJSON {
	j := commitJSON{
		ID: r.ImageID, Names: orEmpty(r.Names), ManifestDigest: r.ManifestDigest, ConfigDigest: r.ConfigDigest,
		DiffIDs: orEmpty(r.DiffIDs), Layer: newLayerJSON(r.Layer), Report: newReport(r.Report), Removed: r.Removed,
		ImageDigest: r.ManifestDigest, ImageConfig: r.ConfigDigest,
	}
	names := append([]string{}, r.Names...)
	for _, c := range r.Copies {
		names = append(names, c.Name)
		j.Copies = append(j.Copies, copyJSON{c.Name, c.Format, c.ManifestDigest})
	}
	j.ImageNameList = strings.Join(names, ",")
	return j
}
