package commit

import (
	"context"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// Edit makes an image that differs from another one of the store in nothing but what fn changes: the layers are shared, the
// format stays, and so does all of both documents that fn leaves alone; an edit taken back gives the first image again. An
// image of schema 1, whose only document is signed or at least could be, becomes one of schema 2. Of the options Names
// counts. Errors are those of [copydata.CopyData.Update].
func Edit(ctx context.Context, st *store.Store, img *store.Image, fn func(*copydata.Settings) error, o Options) (Result, error) {
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	docs, err := edited(ctx, st, img, fn)
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
func edited(ctx context.Context, st *store.Store, img *store.Image, fn func(*copydata.Settings) error) (documents, error) {
	state, err := st.ImageCopyData(ctx, img.ID)
	if err != nil {
		return documents{}, err
	}
	if err := state.Update(fn); err != nil {
		return documents{}, err
	}
	source, config := state.Source(), state.Config()
	if source.Format == convert.DockerV2S1 {
		base, err := img.Layers(ctx)
		if err == nil {
			err = measure(ctx, st, base, 0)
		}
		if err != nil {
			return documents{}, err
		}
		return write(convert.DockerV2S2, config, asLayers(base), nil)
	}
	d := documents{manifestType: source.Format.ManifestType(), diffIDs: config.Docker().RootFS.DiffIDs}
	if d.config, d.report, err = configJSON(config, source.Format); err != nil {
		return d, err
	}
	var losses convert.Report
	d.manifest, losses, err = convert.Reconfigured(source.Manifest, d.config, state.Annotations())
	d.report = append(d.report, losses...)
	return d, err
}

// asLayers names layers of a store by their diffIDs: they are uncompressed, and whoever copies them may compress them.
func asLayers(base []store.LayerInfo) []convert.Layer {
	layers := make([]convert.Layer, 0, len(base)+1)
	for _, l := range base {
		layers = append(layers, convert.Layer{DiffID: l.DiffID, Digest: l.DiffID, Size: l.Size})
	}
	return layers
}
