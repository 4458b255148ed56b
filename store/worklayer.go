package store

import (
	"context"
	"os"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

// WorkLayer is a mounted layer that can be written to, without a container around it: where one step of a build happens. It has a
// random ID and no name, and no other tool lists it. The caller releases it.
type WorkLayer struct {
	ID     string
	Parent string // id of the layer below; "": none
	Root   string // where it is mounted
	s      *Store
	hold   *Hold
}

// NewWorkLayer makes a layer on top of parent, "" for none, and mounts it; it holds what below holds, which may be nil. It is there as a
// whole or not at all. Class notfound: an unknown parent.
func (s *Store) NewWorkLayer(ctx context.Context, parent string, below *Hold) (*WorkLayer, error) {
	w := &WorkLayer{ID: newID(), Parent: parent, s: s}
	w.hold = &Hold{s: s, layers: append(below.all(), heldLayer{id: w.ID})}
	err := s.Change(ctx, "layer", func(ctx context.Context, tx *Tx) error {
		if err := s.canWalk(); err != nil {
			return err
		}
		if _, err := tx.depth(ctx, parent); err != nil {
			return err
		}
		tx.Record("layer "+w.ID, func(ctx context.Context) error {
			tx.Undo(w.Release)
			return w.make(ctx)
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (w *WorkLayer) make(ctx context.Context) error {
	if err := w.hold.take(); err != nil {
		return err
	}
	if err := failpoint.Here("work.held"); err != nil {
		return err
	}
	if _, err := w.s.st.CreateLayer(w.ID, w.Parent, nil, w.s.mountLabel(w.Parent), true, layerOptions()); err != nil {
		return err
	}
	if err := w.s.letOwnerWrite(w.ID); err != nil {
		return err
	}
	if err := failpoint.Here("work.made"); err != nil {
		return err
	}
	var err error
	if w.Root, err = w.container().Mount(ctx); err != nil {
		return err
	}
	return failpoint.Here("work.mounted")
}

// container is the layer with the means of a container, whose mounts are counted in the same way.
func (w *WorkLayer) container() *Container {
	return &Container{ID: w.ID, Name: "layer " + w.ID, LayerID: w.ID, s: w.s}
}

func (w *WorkLayer) readable() readable {
	return readable{name: "layer " + w.ID, layerID: w.ID, built: w}
}

// Stack opens what was written to the layer. Class invalid after Release; class damaged when the mount is gone and files were written
// to the bare directory.
func (w *WorkLayer) Stack(ctx context.Context) (*Stack, error) {
	if !w.s.layerExists(w.ID) {
		return nil, kimg.Errorf(kimg.ErrInvalid, "layer "+w.ID, "was released")
	}
	path, _, err := w.container().Mounted()
	if err != nil {
		return nil, err
	}
	if path == "" && w.s.st.GraphDriverName() == overlay {
		if entries, err := os.ReadDir(w.Root); err == nil && len(entries) > 0 {
			return nil, kimg.Errorf(kimg.ErrDamaged, "layer "+w.ID, "the mount at %s is gone, and files were written into the bare directory", w.Root)
		}
	}
	return w.s.Stack(ctx, w, StackOptions{})
}

// Release unmounts the layer, whoever counts on the mount, and removes it, also when ctx is cancelled. A second call does nothing; after
// an error it tries again.
func (w *WorkLayer) Release(ctx context.Context) error { return w.hold.Release(ctx) }
