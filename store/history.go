package store

import (
	"context"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// HistoryStep is one step of how an image came to be.
type HistoryStep struct {
	docker.History
	Layer LayerInfo // zero when the step made no layer
}

// History returns the steps of an image, the oldest first. An image without any history has a step for each layer, which
// says nothing.
func (i *Image) History(ctx context.Context) ([]HistoryStep, error) {
	state, err := i.s.ImageCopyData(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	return i.history(ctx, state.Config())
}

// History returns the steps of the image that the container would become, without the one that a commit adds.
func (c *Container) History(ctx context.Context) ([]HistoryStep, error) {
	state, _, err := c.s.CopyData(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	base, err := c.Base(ctx)
	if err != nil {
		return nil, err
	}
	return base.history(ctx, state.Config())
}

// history joins the history of a configuration with the layers of an image, which may be nil.
func (i *Image) history(ctx context.Context, config convert.Config) ([]HistoryStep, error) {
	var layers []LayerInfo
	if i != nil {
		var err error
		if layers, err = i.Layers(ctx); err != nil {
			return nil, err
		}
	}
	said := config.Docker()
	if len(said.RootFS.DiffIDs) != len(layers) {
		return nil, kimg.Errorf(kimg.ErrDamaged, i.label(), "%d layers where the configuration has %d; run kimg check", len(layers), len(said.RootFS.DiffIDs))
	}
	if len(said.History) == 0 {
		said.History = make([]docker.History, len(layers))
	}
	steps := make([]HistoryStep, len(said.History))
	next := 0
	for n, h := range said.History {
		steps[n].History = h
		if !h.EmptyLayer { // as many as diff IDs: convert has checked it
			steps[n].Layer = layers[next]
			steps[n].Layer.DiffID = said.RootFS.DiffIDs[next]
			next++
		}
	}
	return steps, nil
}
