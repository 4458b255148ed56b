package store

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

// Hold keeps layers that no image has yet. Until Release nothing of kimg's collects them; then, and after a kill by the next
// [Open], those that nothing else stands on by then are removed. It is safe for concurrent use. Layers pin what is below them for
// every other tool. In a wrapped store it holds for users of the same Store, and a kill leaves its layers.
type Hold struct {
	s      *Store
	layers []heldLayer // base first
	mu     sync.Mutex
	in     *intent // nil in a wrapped store
	held   bool
	counts bool // among the holds of the Store
}

// heldLayer is one layer that is held.
type heldLayer struct {
	id     string
	diffID digest.Digest // "": it is being written, and nobody else knows it
	kept   bool          // was there before anybody held it, so it stays
}

// holds counts the holds of each layer in this Store.
type holds struct {
	mu sync.Mutex
	n  map[string]int
}

func (h *holds) add(layers []heldLayer, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == nil {
		h.n = map[string]int{}
	}
	for _, l := range layers {
		if h.n[l.id] += n; h.n[l.id] == 0 {
			delete(h.n, l.id)
		}
	}
}

func (h *holds) has(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n[id] > 0
}

// Hold registers that a staged layer and those of below, which may be nil, are held from the moment the layer is recorded. The Hold
// counts when the change has succeeded.
func (tx *Tx) Hold(l *StagedLayer, below *Hold) *Hold {
	h := &Hold{s: tx.s, layers: below.all()}
	i := len(h.layers)
	st := step{what: "layer " + l.ID, do: func(ctx context.Context) error {
		if !l.Empty {
			kept := l.Existing
			if kept {
				held, err := tx.s.heldAnywhere(l.ID, tx.intent)
				if err != nil {
					return err
				}
				kept = !held
			}
			h.layers = append(h.layers[:i], heldLayer{l.ID, l.DiffID, kept})
		}
		tx.Undo(h.Release)
		if err := h.take(); err != nil {
			return err
		}
		if l.ID != "" && !tx.s.layerExists(l.ID) { // somebody collected it before it was held
			return errors.Join(storage.ErrLayerUnknown, h.Release(ctx))
		}
		return nil
	}}
	if !l.Empty { // a layer that nobody came to hold is taken back
		st.intent = func() (*intentStep, error) { return &intentStep{Held: l.ID, DiffID: l.DiffID, Kept: l.Existing}, nil }
	}
	tx.steps = append(tx.steps, st)
	return h
}

// all returns the layers of a hold; nil has none.
func (h *Hold) all() []heldLayer {
	if h == nil {
		return nil
	}
	return slices.Clone(h.layers)
}

// take makes the hold known.
func (h *Hold) take() (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.s.opened && len(h.layers) > 0 {
		in := intent{Schema: intentSchema, Op: "hold"}
		for _, l := range h.layers {
			in.Steps = append(in.Steps, intentStep{Held: l.id, DiffID: l.diffID, Kept: l.kept})
		}
		if h.in, err = h.s.writeIntent(in); err != nil {
			return wrap("hold", err)
		}
	}
	h.s.holds.add(h.layers, 1)
	h.held, h.counts = true, true
	return nil
}

// Release ends the hold, also when ctx is cancelled. A second call does nothing; after an error it tries again.
func (h *Hold) Release(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.held {
		return nil
	}
	if err := failpoint.Here("hold.begin"); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	layers := slices.Clone(h.layers)
	slices.Reverse(layers)
	for _, l := range layers {
		if l.diffID == "" {
			if err := h.s.dropLayer(l.id); err != nil {
				return err
			}
		}
	}
	if err := failpoint.Here("hold.dropped"); err != nil {
		return err
	}
	if err := h.in.rename(releasedPrefix); err != nil {
		return wrap("hold", err)
	}
	if h.counts {
		h.s.holds.add(h.layers, -1)
		h.counts = false
	}
	if err := failpoint.Here("hold.released"); err != nil {
		return err
	}
	for _, l := range layers {
		if l.diffID == "" || l.kept {
			continue
		}
		if h.s.holds.has(l.id) {
			break // and so are those below it
		}
		if err := h.s.release(ctx, l.id, l.diffID, nil); err != nil {
			return kimg.Wrap("layer "+l.id, err)
		}
	}
	h.in.remove()
	h.held, h.in = false, nil
	return nil
}

// release removes a layer that is not held any more, unless something stands on it.
func (s *Store) release(ctx context.Context, id string, diffID digest.Digest, mine *intent) error {
	unlock, err := s.lockDigest(ctx, diffID)
	if err != nil {
		return err
	}
	defer unlock()
	return s.deleteUnusedLayer(id, mine)
}

// heldAnywhere tells whether a living hold, of this process or another one, counts a layer among what it may remove.
func (s *Store) heldAnywhere(id string, except *intent) (bool, error) {
	if s.holds.has(id) {
		return true, nil
	}
	return s.livingStep(except, true, func(st intentStep) bool { return st.Held == id && !st.Kept })
}
