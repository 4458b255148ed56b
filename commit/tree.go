package commit

import (
	"context"
	"io"

	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
	"github.com/kimg/kimg/store"
)

// tree is what a stack changes, as a layer on its way into the store.
type tree struct {
	stack view.Stack
	o     layerdiff.Options
	blob  layerdiff.Blob // what was staged
}

// Stage implements [store.LayerSource].
func (t *tree) Stage(ctx context.Context, dir string) (store.Staged, error) {
	tarSplit, err := store.TarSplitFile(dir)
	if err != nil {
		return store.Staged{}, err
	}
	t.blob, err = layerdiff.Stage(ctx, dir, tarSplit, t.stack, t.o)
	if err != nil {
		tarSplit.Close()
		return store.Staged{}, err
	}
	return store.Staged{
		DiffID: t.blob.DiffID, Size: t.blob.Size, UIDs: t.blob.UIDs, GIDs: t.blob.GIDs, TarSplit: tarSplit, Empty: t.blob.Empty,
	}, nil
}

// Stream implements [store.LayerSource].
func (t *tree) Stream(ctx context.Context, w io.Writer) (_ bool, err error) {
	o := t.o
	if o.Tar != nil && o.Tar != io.Discard {
		w = io.MultiWriter(w, o.Tar)
	}
	o.Tar = nil
	t.blob, err = layerdiff.Write(ctx, w, t.stack, o)
	return t.blob.Empty, err
}
