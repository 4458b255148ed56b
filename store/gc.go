package store

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/safeopen"
)

// gcAge is how long a layer or file that nobody needs is left to whoever may be about to need it, as it is for the library.
const gcAge = 24 * time.Hour

// Garbage is one thing in a store that nobody needs any more.
type Garbage struct {
	Kind string // lease, layer, staging, file
	ID   string // of a lease or a layer, else a path
	Size int64  // bytes of a layer, else -1, also when it is unknown
	Why  string
}

// Garbage lists what [Store.Collect] would remove: leases that are over, staging directories nobody fills, and, if they were
// made before a time (zero: a day ago), layers that no image, container or running change needs, and unfinished files.
// A tool that builds an image has its layers in the store for a while before the image is there: nobody but the time
// protects them.
func (s *Store) Garbage(ctx context.Context, before time.Time) ([]Garbage, error) {
	if before.IsZero() {
		before = time.Now().Add(-gcAge)
	}
	all, err := s.Leases(ctx)
	if err != nil {
		return nil, err
	}
	var found []Garbage
	for _, l := range all {
		switch l.State {
		case LeaseExpired:
			found = append(found, Garbage{"lease", l.ID, -1, "its time is over"})
		case LeaseDead:
			found = append(found, Garbage{"lease", l.ID, -1, "the program that held it is gone"})
		}
	}
	layers, err := s.unneededLayers(before)
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		found = append(found, Garbage{"layer", l.ID, l.UncompressedSize, "no image or container stands on it"})
	}
	dirs, err := s.stagingDirs()
	for _, dir := range dirs {
		var lock *os.File
		if lock, err = s.abandoned(dir, before); err != nil {
			break
		}
		if lock != nil {
			lock.Close()
			found = append(found, Garbage{"staging", dir, -1, "nobody fills it"})
		}
	}
	files, ferr := s.unfinishedFiles(before)
	for _, path := range files {
		found = append(found, Garbage{"file", path, -1, "it was never finished"})
	}
	return found, wrap("store", errors.Join(err, ferr))
}

// Collect removes what [Store.Garbage] has listed, as far as it would list it now too, and returns what it has removed. Class invalid for
// a kind of garbage that there is not.
func (s *Store) Collect(ctx context.Context, found []Garbage, before time.Time) ([]Garbage, error) {
	if before.IsZero() {
		before = time.Now().Add(-gcAge)
	}
	var removed []Garbage
	err := s.Change(ctx, "gc", func(_ context.Context, tx *Tx) error {
		tx.Record("", func(ctx context.Context) error {
			for _, g := range found {
				if err := check(ctx); err != nil {
					return err
				}
				gone, err := s.collect(ctx, g, before)
				if err != nil {
					return wrap(g.Kind+" "+g.ID, err)
				}
				if gone {
					removed = append(removed, g)
					s.Tell(Event{Type: EventResult, Op: "gc", Object: g.Kind + " " + g.ID})
				}
			}
			return nil
		})
		return nil
	})
	return removed, err
}

func (s *Store) collect(ctx context.Context, g Garbage, before time.Time) (bool, error) {
	switch g.Kind {
	case "lease":
		return s.collectLease(ctx, g.ID)
	case "layer":
		l, err := s.layerIfThere(g.ID)
		if l == nil || err != nil || l.Created.After(before) {
			return false, err
		}
		if err := s.deleteForgotten(ctx, g.ID); err != nil {
			return false, err
		}
		return !s.layerExists(g.ID), nil
	case "staging":
		if g.ID != filepath.Join(s.stagingHome(), filepath.Base(g.ID)) {
			return false, nil
		}
		lock, err := s.abandoned(g.ID, before)
		if lock == nil || err != nil {
			return false, err
		}
		return true, errors.Join(os.RemoveAll(g.ID), lock.Close())
	case "file":
		id := filepath.Base(filepath.Dir(filepath.Dir(g.ID)))
		files, err := s.unfinished(id, before)
		if err != nil || !slices.Contains(files, g.ID) || !s.containerExists(id) {
			return false, err
		}
		return s.collectFile(id, g.ID)
	}
	return false, kimg.Errorf(kimg.ErrInvalid, "garbage", "of kind %s", kimg.Quote(g.Kind))
}

func (s *Store) collectFile(id, path string) (bool, error) {
	lock, err := s.lockContainer(id) // its writer has it
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err == nil, err
	}
	return false, nil
}

// abandoned takes the lock of a staging directory that nobody fills; nil when somebody may. What belongs to other programs in
// this process only the time tells.
func (s *Store) abandoned(dir string, before time.Time) (*os.File, error) {
	if info, err := os.Lstat(dir); !s.opened && err == nil && info.ModTime().After(before) {
		return nil, nil
	}
	return staleStaging(dir)
}

// unneededLayers lists layers made before a time that nothing stands on, those on top first.
func (s *Store) unneededLayers(before time.Time) ([]storage.Layer, error) {
	needed, err := s.usedLayers()
	if err != nil {
		return nil, err
	}
	layers, err := s.st.Layers()
	if err != nil {
		return nil, err
	}
	parent := make(map[string]string, len(layers))
	for _, l := range layers {
		parent[l.ID] = l.Parent
	}
	depth := func(id string) (n int) {
		for ; id != "" && n <= len(layers); n++ {
			id = parent[id]
		}
		return n
	}
	for _, l := range layers {
		if needed[l.ID] {
			continue
		}
		wanted, err := s.wantedElsewhere(l.ID, nil)
		if err != nil {
			return nil, err
		}
		if wanted || l.ReadOnly || l.MountCount > 0 || len(l.Names) > 0 || l.Created.After(before) {
			for id := l.ID; id != "" && !needed[id]; id = parent[id] {
				needed[id] = true
			}
		}
	}
	layers = slices.DeleteFunc(layers, func(l storage.Layer) bool { return needed[l.ID] })
	slices.SortFunc(layers, func(a, b storage.Layer) int { return cmp.Or(depth(b.ID)-depth(a.ID), cmp.Compare(a.ID, b.ID)) })
	return layers, nil
}

// unfinishedFiles lists what killed writers of state files have left.
func (s *Store) unfinishedFiles(before time.Time) ([]string, error) {
	all, err := s.st.Containers()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, c := range all {
		found, err := s.unfinished(c.ID, before)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

// unfinished lists those of one container.
func (s *Store) unfinished(id string, before time.Time) ([]string, error) {
	files, err := safeopen.Unfinished(filepath.Join(s.containerDir(id), copydata.FileName))
	return slices.DeleteFunc(files, func(path string) bool {
		info, err := os.Lstat(path)
		return err != nil || !info.ModTime().Before(before)
	}), err
}
