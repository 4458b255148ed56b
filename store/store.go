package store

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/containers/storage"
)

// Options say which store to open. The zero value opens the user's default store.
type Options struct {
	Root          string       // graph root; "": storage.conf decides
	RunRoot       string       // "": storage.conf decides
	Driver        string       // "": the environment, storage.conf or the existing store decides
	DriverOptions []string     // not nil: instead of the options of storage.conf
	NoSync        bool         // a throw-away store: success does not mean durable
	Logger        *slog.Logger // nil discards; see also [Store.Listen]
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	st     storage.Store
	log    *slog.Logger
	noSync bool
	opened bool // by Open: intents are written and recovered
	holds  holds
	tell   func(Event) // may be nil
	depths sync.Map    // of layers, by their ids
	dirs   sync.Map    // *layerDirs of layers that were built on, by their ids
}

// Wrap uses a store that someone else opened, as it is: it is never shut down, its options are not read again, no lock
// file of ours is kept in it and nothing is recovered. A kill in the middle of a change can then leave a layer
// without an image (which the next try with the same content reuses), and a container that was being made without its
// state file.
func Wrap(s storage.Store) *Store {
	return &Store{st: s, log: slog.New(slog.DiscardHandler)}
}

// Close forgets the store. Mounts stay. A store given to [Wrap] is left alone. Like [Open], any goroutine may call it at any time.
func (s *Store) Close() error {
	if s.opened {
		openStores.Lock()
		defer openStores.Unlock()
		s.st.Free()
	}
	return nil
}

// Storage returns the store underneath.
func (s *Store) Storage() storage.Store { return s.st }

// Recovers tells whether a change that is killed half-way is completed or taken back by the next [Open]. Only then may a
// change remove a container before its image is recorded.
func (s *Store) Recovers() bool { return s.opened }

// Info is what there is to know about a store without reading its records.
type Info struct {
	Root, RunRoot string
	ImageStore    string // where images live when that is not Root
	Driver        string
	DriverOptions []string
	Status        map[string]string // what the driver says about itself
	Additional    []string          // read-only stores below this one
	Transient     bool              // containers do not outlive a reboot
	NoSync        bool
	CanCommit     bool   // layers can be added and containers committed
	Why           string // why not
}

// Info describes the store.
func (s *Store) Info() Info {
	i := Info{
		Root: s.st.GraphRoot(), RunRoot: s.st.RunRoot(), ImageStore: s.st.ImageStore(), Driver: s.st.GraphDriverName(),
		DriverOptions: s.st.GraphOptions(), Transient: s.st.TransientStore(), NoSync: s.noSync, Status: map[string]string{}, CanCommit: true,
	}
	if pairs, err := s.st.Status(); err == nil {
		for _, p := range pairs {
			i.Status[p[0]] = p[1]
		}
	}
	if d, err := s.st.GraphDriver(); err == nil {
		i.Additional = d.AdditionalImageStores()
	}
	if err := s.canWalk(); err != nil {
		i.CanCommit, i.Why = false, err.Error()
	}
	return i
}

// imageRoot returns the directory that holds layers and images.
func (s *Store) imageRoot() string {
	if dir := s.st.ImageStore(); dir != "" {
		return dir
	}
	return s.st.GraphRoot()
}

// dir returns one of the driver's record directories below a root: "layers", "images", "containers".
func (s *Store) recordDir(root, kind string) string {
	return filepath.Join(root, s.st.GraphDriverName()+"-"+kind)
}

// check returns the context's cause when it is cancelled.
func check(ctx context.Context) error { return context.Cause(ctx) }
