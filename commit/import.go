package commit

import (
	"context"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
	"github.com/kimg/kimg/store"
)

// Import makes an image of one layer, with nothing below it: a root file system from elsewhere ([store.TarSource], [Dir]).
// Of the options Format, Names, Author, Message, CreatedBy, Created, OmitHistory, Annotations and Change count. The image
// is recorded when every byte of it is on disk, and not at all on an error. When another tool takes the layer away while it is made, a
// source that can be read again is, three times in all; what cannot is class busy.
func Import(ctx context.Context, st *store.Store, src store.LayerSource, platform ispec.Platform, o Options) (Result, error) {
	created := time.Now().UTC()
	if o.Created != nil {
		created = o.Created.UTC()
	}
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	result := Result{Names: names}
	stage := func(ctx context.Context, tx *store.Tx) error {
		layer, err := tx.StageLayer(ctx, "", src)
		if err != nil {
			return err
		}
		result.Layer = layerdiff.Blob{DiffID: layer.DiffID, Size: layer.Size, Empty: layer.Empty}
		if d, ok := src.(*tree); ok {
			result.Layer = d.blob
		}
		result.LayerExisted = layer.Existing
		config, err := o.imported(platform, created, layer)
		if err != nil {
			return err
		}
		var layers []convert.Layer
		if !layer.Empty {
			layers = append(layers, convert.Layer{DiffID: layer.DiffID, Digest: layer.DiffID, Size: layer.Size})
		}
		docs, err := write(o.format(), config, layers, o.Annotations)
		if err != nil {
			return err
		}
		result.fill(docs)
		tx.PutImage(store.ImageRecord{
			Config: docs.config, Manifest: docs.manifest, ManifestType: docs.manifestType, TopLayer: layer.ID, Names: names, Created: created,
		})
		return nil
	}
	if err := store.Again(func() error { return st.Change(ctx, "import", stage) }); err != nil {
		return Result{}, err
	}
	return result, nil
}

// imported is the configuration of an imported image.
func (o Options) imported(p ispec.Platform, created time.Time, layer *store.StagedLayer) (convert.Config, error) {
	step := docker.History{Created: &created, CreatedBy: o.CreatedBy, Comment: o.Message, Author: o.Author}
	config := convert.NewConfig(p.OS, p.Architecture, p.Variant)
	var err error
	if layer.Empty {
		config, err = config.AddEmpty(step)
	} else {
		config, err = config.AddLayer(layer.DiffID, step)
	}
	if err != nil {
		return config, err
	}
	return o.finish(config, created, o.Author, o.Message)
}

// Dir is a directory of the host as a layer. Owners, modes and attributes are taken as they are.
func Dir(path string, o layerdiff.Options) store.LayerSource {
	return &tree{stack: view.Stack{Upper: path}, o: o}
}
