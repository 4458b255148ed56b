package store

import (
	"path/filepath"
	"slices"

	"github.com/kimg/kimg/layerdiff/view"
)

// A build asks at every step for the directories of one layer more, and the driver looks at five files for each of them. The same id
// always stands on the same layers, so it is asked once, for what the build began with. That the directories are there is looked at
// each time.
type layerDirs struct {
	own   []string // of the layer, and older ones
	below *layerDirs
}

// dirs returns the directories of the layer, as [Store.dirsOf] does.
func (w *WorkLayer) dirs() (view.Stack, error) {
	stack := view.Stack{Upper: w.s.diffOf(w.ID), XattrPrefix: xattrPrefix()}
	below, err := w.s.layerDirs(w.Parent)
	if err != nil {
		return stack, err
	}
	for ; below != nil; below = below.below {
		stack.Lowers = append(stack.Lowers, below.own...)
	}
	return stack, complete(w.ID, stack)
}

// layerDirs returns those of a layer that is built on; nil for "".
func (s *Store) layerDirs(id string) (*layerDirs, error) {
	if id == "" {
		return nil, nil
	}
	if known, ok := s.dirs.Load(id); ok {
		return known.(*layerDirs), nil
	}
	l, err := s.st.Layer(id)
	if err != nil {
		return nil, wrap("layer "+id, err)
	}
	d := &layerDirs{}
	if below, ok := s.dirs.Load(l.Parent); ok && !l.ReadOnly {
		diff := s.diffOf(id)
		d.own, d.below = append([]string{diff}, older(diff)...), below.(*layerDirs)
	} else {
		stack, err := s.dirsOf(id)
		if err != nil {
			return nil, err
		}
		d.own = slices.Insert(stack.Lowers, 0, stack.Upper)
	}
	s.dirs.Store(id, d)
	return d, nil
}

// diffOf is where the overlay driver keeps what a layer of this store, not an additional one, changes.
func (s *Store) diffOf(id string) string { return filepath.Join(s.rootOf(id), overlay, id, "diff") }
