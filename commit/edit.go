package commit

import (
	"context"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// Edit makes an image that differs from another one of the store in nothing but what fn changes: the layers are shared, the
// format stays, and so does all of both documents that fn leaves alone; an edit taken back gives the first image again.
// Of the options Names counts. Errors are those of [copydata.CopyData.Update]; images without a configuration of their own
// (lists, schema 1) are class unsupported.
func Edit(ctx context.Context, st *store.Store, img *store.Image, fn func(*copydata.Settings) error, o Options) (Result, error) {
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	docs, err := edited(ctx, img, fn)
	if err != nil {
		return Result{}, err
	}
	err = st.Change(ctx, "config", func(_ context.Context, tx *store.Tx) error {
		tx.PutImage(store.ImageRecord{
			Config: docs.config, Manifest: docs.manifest, ManifestType: docs.manifestType, TopLayer: img.TopLayer, Names: names,
			Created: img.Created,
		})
		return nil
	})
	if err != nil {
		return Result{}, kimg.Wrap(img.ID, err)
	}
	result := Result{Names: names}
	result.Layer.Empty = true
	result.fill(docs)
	return result, nil
}

// edited are the documents of an image after an edit.
func edited(ctx context.Context, img *store.Image, fn func(*copydata.Settings) error) (documents, error) {
	manifest, manifestType, err := img.Manifest(ctx)
	if err != nil {
		return documents{}, err
	}
	config, err := img.Config(ctx)
	if err != nil {
		return documents{}, err
	}
	state, err := copydata.New(copydata.Origin{ImageID: img.ID, Manifest: manifest, Config: config}, img.ID, "")
	if err != nil {
		return documents{}, err
	}
	if err := state.Update(fn); err != nil {
		return documents{}, err
	}
	d := documents{manifestType: manifestType, diffIDs: state.Config().Docker().RootFS.DiffIDs}
	if d.config, d.report, err = state.Config().JSON(state.Source().Format); err != nil {
		return d, err
	}
	var losses convert.Report
	d.manifest, losses, err = convert.Reconfigured(manifest, d.config, state.Annotations())
	d.report = append(d.report, losses...)
	return d, err
}
