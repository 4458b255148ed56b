package store

import (
	"context"
	"fmt"
	"iter"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// LayerName is what a layer can be found by.
type LayerName struct {
	DiffID digest.Digest // empty: not known, so nothing is found
	TOC    digest.Digest // of its table of contents, when it could have been pulled in parts; may be empty
}

// Present finds those layers of an image, base first, that the store has already or that were placed in this change, from the base up
// to the first one that is missing, and makes it a step of the change that they are still there. A layer that nothing stands on,
// which a crash or another tool may have left, counts after its content was verified; so does a layer that was pulled in parts
// and of which nobody knows the diffID yet.
func (tx *Tx) Present(ctx context.Context, names []LayerName) ([]*StagedLayer, error) {
	if len(names) == 0 {
		return nil, nil
	}
	used, err := tx.s.usedLayers()
	if err != nil {
		return nil, err
	}
	var found []*StagedLayer
	parent := ""
	for _, n := range names {
		l := tx.placed(parent, n)
		if l == nil {
			if l, err = tx.present(ctx, parent, n, used); err != nil {
				return nil, err
			}
		}
		if l == nil {
			break
		}
		found = append(found, l)
		parent, l.depth = l.ID, len(found)
	}
	return found, nil
}

// placed finds a layer of this change.
func (tx *Tx) placed(parent string, n LayerName) *StagedLayer {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	for l := range tx.layers() {
		if n.DiffID != "" && l.ID != parent && l.Parent == parent && l.DiffID == n.DiffID {
			return l
		}
	}
	return nil
}

// layers goes through the layers of the change, those that were placed and those that were found.
func (tx *Tx) layers() iter.Seq[*StagedLayer] {
	return func(yield func(*StagedLayer) bool) {
		for _, o := range tx.outs {
			if l := o.layer; l != nil && !l.Empty && l.ID != "" && !yield(l) {
				return
			}
		}
		for _, l := range tx.there {
			if !yield(l) {
				return
			}
		}
	}
}

func (tx *Tx) present(ctx context.Context, parent string, n LayerName, used map[string]bool) (*StagedLayer, error) {
	if n.DiffID == "" {
		return nil, nil
	}
	ids := []string{layerID(parent, n.DiffID)}
	if n.TOC != "" { // containers/image's name for it
		ids = append(ids, digest.Canonical.FromString(parent+"+@TOC="+n.TOC.Encoded()).Encoded())
	}
	for _, id := range ids {
		old, err := tx.s.layerIfThere(id)
		if err != nil {
			return nil, err
		}
		if old == nil || old.Parent != parent || old.UncompressedDigest != n.DiffID && old.UncompressedDigest != "" {
			continue
		}
		l := &StagedLayer{ID: id, Parent: parent, DiffID: n.DiffID, Size: old.UncompressedSize, Existing: true}
		l.partial = old.UncompressedDigest == ""
		if l.partial || !old.ReadOnly && !used[id] {
			if err := tx.s.verifyAs(ctx, old, n.DiffID); kimg.ClassOf(err) == kimg.ErrInterrupted {
				return nil, err
			} else if err != nil {
				tx.s.log.DebugContext(ctx, "a layer of the store cannot be used again", "layer", id, "error", err)
				continue
			}
			l.verified = old.Created
		}
		tx.addLayer(l)
		tx.there = append(tx.there, l)
		return l, nil
	}
	return nil, nil
}

// verifyAs reads a whole layer and compares it with a digest that its record need not know.
func (s *Store) verifyAs(ctx context.Context, l *storage.Layer, diffID digest.Digest) error {
	known := *l
	known.UncompressedDigest = diffID
	return s.verifyLayer(ctx, &known)
}

// gone says that a layer that was to be used again is not there any more.
func gone(id string) error { return fmt.Errorf("layer %s: %w", id, storage.ErrLayerUnknown) }
