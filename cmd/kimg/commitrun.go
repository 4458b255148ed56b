package main

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/image/v5/types"
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
	if o.options.Created == nil {
		now := time.Now().UTC() // one time for the image in the store and its copy elsewhere
		o.options.Created = &now
	}
	// The image library notes where it has seen blobs, in a directory of its own choice unless told otherwise.
	o.copying.System = &types.SystemContext{BlobInfoCacheDir: filepath.Join(st.Info().RunRoot, "kimg-blobs")}
	made, err := o.commit(ctx, st, c)
	if err != nil {
		return err
	}
	result := newCommitJSON(made, o.copies)
	if err := iid.write([]byte(made.ImageID)); err != nil {
		return err
	}
	data, err := versioned(result)
	if err == nil {
		err = metadata.write(data)
	}
	if err != nil {
		return err
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

// commit makes the image at every destination, or nowhere.
func (o *commitOptions) commit(ctx context.Context, st *store.Store, c *store.Container) (commit.Result, error) {
	options := o.options
	options.Remove = o.remove
	if len(o.copies) == 0 {
		return commit.Container(ctx, st, c.ID, options)
	}
	options.Remove = false
	if len(o.names) > 0 {
		return o.commitTwice(ctx, st, c, options)
	}
	made, err := commit.Copy(ctx, st, c.ID, o.copies[0], options, o.copying)
	if err == nil && o.remove {
		err = c.Remove(ctx)
		made.Removed = err == nil
	}
	return made, err
}

// commitTwice commits to the store and elsewhere. The image gets its names last: until then it can be taken back without
// anybody having seen it.
func (o *commitOptions) commitTwice(ctx context.Context, st *store.Store, c *store.Container, options commit.Options) (commit.Result, error) {
	names, err := store.NormalizeNames(o.names)
	if err != nil {
		return commit.Result{}, err
	}
	known := map[string]bool{}
	images, err := st.Images(ctx)
	if err != nil {
		return commit.Result{}, err
	}
	for _, img := range images {
		known[img.ID] = true
	}
	options.Names = nil
	made, err := commit.Container(ctx, st, c.ID, options)
	if err != nil {
		return made, err
	}
	copied, err := commit.Copy(ctx, st, c.ID, o.copies[0], options, o.copying)
	if err == nil {
		_, err = st.Tag(ctx, made.ImageID, o.names...)
	}
	if err != nil {
		if known[made.ImageID] {
			return made, err
		}
		_, back := st.DeleteImage(context.WithoutCancel(ctx), made.ImageID, true)
		return made, joined(err, back)
	}
	made.Names, made.ManifestDigest = names, copied.ManifestDigest
	if o.remove {
		err = c.Remove(ctx)
		made.Removed = err == nil
	}
	return made, err
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

	ImageDigest   digest.Digest `json:"containerimage.digest"`
	ImageConfig   digest.Digest `json:"containerimage.config.digest"`
	ImageNameList string        `json:"image.name"`
}

func newCommitJSON(r commit.Result, copies []types.ImageReference) commitJSON {
	j := commitJSON{
		ID: r.ImageID, Names: orEmpty(r.Names), ManifestDigest: r.ManifestDigest, ConfigDigest: r.ConfigDigest,
		DiffIDs: orEmpty(r.DiffIDs), Layer: newLayerJSON(r.Layer), Report: newReport(r.Report), Removed: r.Removed,
		ImageDigest: r.ManifestDigest, ImageConfig: r.ConfigDigest,
	}
	names := append([]string{}, r.Names...)
	for _, ref := range copies {
		names = append(names, ref.Transport().Name()+":"+ref.StringWithinTransport())
	}
	j.ImageNameList = strings.Join(names, ",")
	return j
}
