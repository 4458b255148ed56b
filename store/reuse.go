package store

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
)

// layerExists tells whether a layer record is there. Errors count as there.
func (s *Store) layerExists(id string) bool {
	_, err := s.st.Layer(id)
	return !errors.Is(err, storage.ErrLayerUnknown)
}

// lookForExisting verifies, while no lock is held, a layer the change would reuse.
func (tx *Tx) lookForExisting(ctx context.Context, l *StagedLayer) error {
	old, err := tx.s.layerIfThere(l.ID)
	if err != nil || old == nil {
		return err
	}
	l.Existing = true
	if trusted, err := tx.s.trusted(old); err != nil || trusted {
		return err
	}
	if err := tx.s.verifyLayer(ctx, old); err == nil {
		l.verified = old.Created
	} else if kimg.ClassOf(err) == kimg.ErrInterrupted {
		return err
	} // what is wrong with it is found again, and dealt with, when the lock is held
	return nil
}

// reuse decides, with the digest lock held, whether the layer that is in the store now takes the place of the staged
// one. A wrong layer that nobody uses is removed.
func (tx *Tx) reuse(ctx context.Context, l *StagedLayer) (bool, error) {
	l.Existing = false
	old, err := tx.s.layerIfThere(l.ID)
	if err != nil || old == nil {
		return false, err
	}
	l.Existing = true
	if l.applied {
		return true, nil
	}
	if old.UncompressedDigest != l.DiffID && !l.partial || old.Parent != l.Parent {
		return false, kimg.Errorf(kimg.ErrDamaged, "layer "+l.ID, "the store has another layer under this id; run kimg check")
	}
	if trusted, err := tx.s.trusted(old); err != nil || trusted {
		return trusted, err
	}
	if !l.verified.IsZero() && l.verified.Equal(old.Created) {
		return true, nil
	}
	bad := tx.s.verifyLayer(ctx, old)
	if bad == nil || kimg.ClassOf(bad) == kimg.ErrInterrupted {
		return bad == nil, bad
	}
	// A tool that does not know our lock may have removed it while it was read.
	if old, err = tx.s.layerIfThere(l.ID); err != nil || old == nil {
		l.Existing = false
		return false, err
	}
	tx.s.log.WarnContext(ctx, "a layer nobody uses is not what it should be and is replaced", "layer", l.ID, "error", bad)
	if err := tx.s.deleteUnusedTree(l.ID, tx.intent); err != nil {
		return false, kimg.Errorf(kimg.ErrDamaged, "layer "+l.ID, "the store has it with other content (%w) and it cannot be replaced: %w", bad, err)
	}
	l.Existing = false
	return false, nil
}

// layerIfThere returns the record of a layer, nil when there is none.
func (s *Store) layerIfThere(id string) (*storage.Layer, error) {
	l, err := s.st.Layer(id)
	if errors.Is(err, storage.ErrLayerUnknown) {
		return nil, nil
	}
	return l, wrap("layer "+id, err)
}

// trusted tells whether a layer may be reused without looking at its content: an image or a container stands on it, or
// it lies in a read-only store.
func (s *Store) trusted(l *storage.Layer) (bool, error) {
	if l.ReadOnly {
		return true, nil
	}
	used, err := s.usedLayers()
	return used[l.ID], err
}

// usedLayers returns the ids of every layer an image or a container stands on.
func (s *Store) usedLayers() (map[string]bool, error) {
	all, err := s.st.MultiList(storage.MultiListOptions{Images: true, Layers: true, Containers: true})
	if err != nil {
		return nil, wrap("store", err)
	}
	parent := make(map[string]string, len(all.Layers))
	for _, l := range all.Layers {
		parent[l.ID] = l.Parent
	}
	used := map[string]bool{}
	mark := func(id string) {
		for ; id != "" && !used[id]; id = parent[id] {
			used[id] = true
		}
	}
	for _, i := range all.Images {
		mark(i.TopLayer)
		for _, id := range i.MappedTopLayers {
			mark(id)
		}
	}
	for _, c := range all.Containers {
		mark(c.LayerID)
	}
	return used, nil
}

// verifyLayer reads a whole layer: every file against its checksum, everything against its digest.
func (s *Store) verifyLayer(ctx context.Context, l *storage.Layer) error {
	return s.exportLayer(ctx, l, io.Discard)
}

// deleteUnusedLayer removes a layer unless an image, a container, another layer or a living change needs it. The caller
// holds its digest lock.
func (s *Store) deleteUnusedLayer(id string, mine *intent) error {
	if wanted, err := s.wantedElsewhere(id, mine); err != nil || wanted {
		return err
	}
	return s.dropLayer(id)
}

// dropLayer removes a layer unless an image, a container or another layer needs it.
func (s *Store) dropLayer(id string) error {
	s.dirs.Delete(id)
	err := s.st.DeleteLayer(id)
	for _, fine := range []error{storage.ErrLayerUnknown, storage.ErrNotALayer, storage.ErrLayerHasChildren, storage.ErrLayerUsedByImage, storage.ErrLayerUsedByContainer} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	return wrap("layer "+id, err)
}

// deleteUnusedTree removes a layer nobody uses and the layers on top of it, which nobody uses either.
func (s *Store) deleteUnusedTree(id string, mine *intent) error {
	if wanted, err := s.wantedElsewhere(id, mine); err != nil || wanted {
		return errors.Join(err, kimg.Errorf(kimg.ErrBusy, "layer "+id, "another change needs it"))
	}
	layers, err := s.st.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if l.Parent == id {
			if err := s.deleteUnusedTree(l.ID, mine); err != nil {
				return err
			}
		}
	}
	return s.st.DeleteLayer(id)
}

// verifiedAt marks which incarnation of a layer was verified: a layer that is removed and made again has another time.
type verifiedAt = time.Time
