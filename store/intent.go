package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
)

// An intent is a file that says what a change is about to record. Its writer holds a lock on it; a file nobody holds
// belongs to a process that was killed, and the next Open takes the change back or completes it. Once every step is
// recorded the file gets another name: from then on nothing is taken back, since others may use the result. A hold that ends gets
// another one: from then on nobody waits for it, and a kill leaves the rest of its end to the next Open.
const (
	intentPrefix   = "intent-"
	recordedPrefix = "recorded-"
	releasedPrefix = "released-"
	intentSuffix   = ".json"
	intentSchema   = 1
	intentLimit    = 256 << 20 // holds a manifest and a config per image, base64
)

type intent struct {
	Schema int          `json:"schema"`
	Op     string       `json:"op"`
	Steps  []intentStep `json:"steps"` // in the order they are recorded
	path   string
	file   *os.File // holds the lock
	s      *Store
}

// intentStep is one step of a change; which members are set says what it does.
type intentStep struct {
	Layer  string        `json:"layer,omitempty"` // id of a layer that is applied
	DiffID digest.Digest `json:"diff-id,omitempty"`

	Create string `json:"create,omitempty"` // id of a container that is made
	Remove string `json:"remove,omitempty"` // id of a container that is removed
	RW     string `json:"rw,omitempty"`     // id of the layer of either container

	Image *intentImage `json:"image,omitempty"` // an image record that is put

	Held string `json:"held,omitempty"` // id of a layer that a builder counts on, and that is removed when he is gone
	Kept bool   `json:"kept,omitempty"` // but not this one

	Delete string   `json:"delete,omitempty"` // id of an image that is removed
	Layers []string `json:"layers,omitempty"` // its layers that go with it, top first
}

// intentImage is an image record that is put, and what it replaces.
type intentImage struct {
	Config       []byte      `json:"config"`
	Manifest     []byte      `json:"manifest"`
	ManifestType string      `json:"manifest-type,omitempty"`
	TopLayer     string      `json:"top-layer,omitempty"`
	Names        []string    `json:"names,omitempty"`
	Created      time.Time   `json:"created"`
	Before       imageBefore `json:"before"`
	List         *listData   `json:"list,omitempty"` // the record is a manifest list

	Signatures map[digest.Digest][][]byte `json:"signatures,omitempty"`
	About      []byte                     `json:"about,omitempty"`
	Data       map[digest.Digest][]byte   `json:"data,omitempty"`
}

func (s *Store) intentDir() string { return filepath.Join(s.st.GraphRoot(), "kimg") }

func (s *Store) makeIntentDir() error {
	err := os.Mkdir(s.intentDir(), 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil && !s.noSync {
		err = safeopen.SyncDir(s.st.GraphRoot())
	}
	return err
}

// writeIntent makes the intent durable and locks it. The lock is taken before the file has its name, so that nobody ever
// sees an intent of a living change unlocked.
func (s *Store) writeIntent(in intent) (*intent, error) {
	data, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if len(data) > intentLimit {
		return nil, kimg.Errorf(kimg.ErrLimit, in.Op, "a change that needs %d bytes to describe, more than %d", len(data), intentLimit)
	}
	dir := s.intentDir()
	if err := s.makeIntentDir(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return nil, err
	}
	in.s, in.file = s, f
	in.path = filepath.Join(dir, intentPrefix+strings.TrimPrefix(filepath.Base(f.Name()), ".new-")+intentSuffix)
	err = lockFile(f)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil && !s.noSync {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), in.path)
	}
	if err == nil && !s.noSync {
		err = safeopen.SyncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), removeIfThere(f.Name()), removeIfThere(in.path))
	}
	return &in, nil
}

// mark says that every step is recorded. unmark takes that back. nil is fine.
func (in *intent) mark() error { return in.rename(recordedPrefix) }

func (in *intent) unmark() error { return in.rename(intentPrefix) }

func (in *intent) rename(prefix string) error {
	if in == nil {
		return nil
	}
	_, rest, _ := strings.Cut(filepath.Base(in.path), "-")
	path := filepath.Join(filepath.Dir(in.path), prefix+rest)
	if path == in.path {
		return nil
	}
	if err := os.Rename(in.path, path); err != nil {
		return err
	}
	in.path = path
	return nil
}

// remove ends the change: there is nothing left to take back or complete. nil is fine.
func (in *intent) remove() {
	if in == nil {
		return
	}
	if err := removeIfThere(in.path); err != nil {
		in.s.log.Warn("could not remove an intent file; the next use of the store does", "file", in.path, "error", err)
	}
	in.abandon()
}

// abandon leaves the intent to the next Open. nil is fine.
func (in *intent) abandon() {
	if in != nil && in.file != nil {
		in.file.Close()
		in.file = nil
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// lockFile takes the exclusive lock of an open file description without waiting; EAGAIN says that somebody alive has it. The
// kernel drops it when the last copy of f is closed, also when the process is killed. Unlike a plain fcntl lock it is
// not lost when the same process opens and closes the file elsewhere.
func lockFile(f *os.File) error {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

// waitLock opens a file, which is made if need be, and waits for its lock. Closing the file gives it back.
func waitLock(path string, limit time.Duration) (*os.File, error) {
	f, err := safeopen.OpenLock(path)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := lockFile(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) || time.Now().After(deadline) {
			f.Close()
			return nil, err
		}
	}
}

// held tells whether somebody alive holds the lock of the file at path, without taking it.
func held(f *os.File) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
		return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return lk.Type != unix.F_UNLCK, nil
}

// intentFiles lists the intent files of the store, living and dead. A store without any costs one failed open.
func (s *Store) intentFiles() ([]string, error) {
	entries, err := os.ReadDir(s.intentDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		begins := func(prefix string) bool { return strings.HasPrefix(e.Name(), prefix) }
		ours := slices.ContainsFunc([]string{intentPrefix, recordedPrefix, releasedPrefix}, begins)
		if ours && strings.HasSuffix(e.Name(), intentSuffix) || begins(".new-") {
			files = append(files, filepath.Join(s.intentDir(), e.Name()))
		}
	}
	return files, nil
}

// openIntent opens an intent file. What is gone meanwhile, or is no regular file and so none of ours, is nil without an
// error.
func openIntent(path string) (*os.File, error) {
	f, err := safeopen.OpenReadWrite(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, kimg.ErrUnsafe) {
		return nil, nil
	}
	return f, err
}

func readIntent(f *os.File) (intent, error) {
	data, err := safeopen.ReadFile(f.Name(), intentLimit)
	if err != nil {
		return intent{}, err
	}
	var in intent
	if err := json.Unmarshal(data, &in); err != nil {
		return intent{}, err
	}
	if in.Schema != intentSchema {
		return intent{}, errors.New("written by another version of this program")
	}
	return in, nil
}

// wantedElsewhere tells whether a living change or hold of another process or goroutine counts on a layer. Whoever asks holds
// the layer's digest lock; a change writes its intent before it takes that lock, so the answer cannot go stale.
func (s *Store) wantedElsewhere(id string, except *intent) (bool, error) {
	if s.holds.has(id) {
		return true, nil
	}
	return s.livingStep(except, false, func(st intentStep) bool { return st.Layer == id || st.Held == id })
}

// livingStep tells whether a living change or hold, one that is being released only when asked for, has a step like that; one that
// cannot be read may have it.
func (s *Store) livingStep(except *intent, released bool, like func(intentStep) bool) (bool, error) {
	files, err := s.intentFiles()
	if err != nil {
		return false, err
	}
	for _, path := range files {
		if except != nil && path == except.path || !released && strings.HasPrefix(filepath.Base(path), releasedPrefix) {
			continue
		}
		wanted, err := living(path, like)
		if err != nil || wanted {
			return wanted, err
		}
	}
	return false, nil
}

func living(path string, like func(intentStep) bool) (bool, error) {
	f, err := openIntent(path)
	if f == nil {
		return false, err
	}
	defer f.Close()
	if alive, err := held(f); err != nil || !alive {
		return false, err
	}
	in, err := readIntent(f)
	if err != nil {
		return true, nil // alive and unreadable: assume the worst
	}
	return slices.ContainsFunc(in.Steps, like), nil
}
