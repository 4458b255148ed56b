package commit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/types"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/staging"
)

// target is what lies at a destination before an image is written there, so that a failure can be taken back.
type target struct {
	path   string
	isDir  bool
	before map[string]bool // what a directory held; nil: there was nothing
	index  []byte          // a layout's index.json as it was; nil: there was none
	lock   *os.File        // keeps other kimgs from a layout that exists; may be nil
}

// indexFile is the file of an OCI layout that is rewritten when an image is added (OCI image layout, "index.json").
const indexFile = "index.json"

// openTarget looks at a destination in the file system. Only an OCI layout may exist already: images are added to it.
func openTarget(dest types.ImageReference) (*target, error) {
	path := dest.StringWithinTransport()
	transport := dest.Transport().Name()
	if transport != "dir" {
		path, _, _ = strings.Cut(path, ":") // the rest is the name of the image in it
	}
	t := &target{path: path, isDir: transport == "dir" || transport == "oci"}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	if !t.isDir || !info.IsDir() {
		return nil, kimg.Errorf(kimg.ErrExists, "", "something is there already")
	}
	if t.before, err = names(path); err != nil {
		return nil, err
	}
	if transport == "dir" && len(t.before) > 0 {
		return nil, kimg.Errorf(kimg.ErrExists, "", "the directory is not empty")
	}
	if t.index, err = safeopen.ReadFile(filepath.Join(path, indexFile), 4<<20); errors.Is(err, fs.ErrNotExist) {
		t.index = nil
		if len(t.before) > 0 {
			return nil, kimg.Errorf(kimg.ErrExists, "", "the directory is not empty and not an OCI layout")
		}
	} else if err != nil {
		return nil, err
	}
	return t, t.acquire()
}

// acquire keeps other kimgs away from the layout: its index is read, changed and written back without a lock of its own.
func (t *target) acquire() (err error) {
	if t.lock, err = os.Open(t.path); err != nil {
		return err
	}
	if err = unix.Flock(int(t.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.close()
		return kimg.Errorf(kimg.ErrBusy, "", "another process is writing to it")
	}
	return nil
}

func (t *target) close() {
	if t.lock != nil {
		t.lock.Close() // the lock goes with it
		t.lock = nil
	}
}

// restore takes back what the copy wrote, and returns the failure that made it necessary.
func (t *target) restore(failure error) error {
	if err := t.takeBack(); err != nil {
		return kimg.Errorf(kimg.ErrDamaged, "", "%w; what it had written could not all be removed: %v", failure, err)
	}
	return failure
}

func (t *target) takeBack() error {
	if t.before == nil {
		return os.RemoveAll(t.path)
	}
	now, err := names(t.path)
	if err != nil {
		return err
	}
	if t.index != nil { // first, so that it never names a blob that is gone
		if err := safeopen.WriteFileAtomic(filepath.Join(t.path, indexFile), t.index, 0o644); err != nil {
			return err
		}
	}
	for name := range now {
		if !t.before[name] {
			if err := os.RemoveAll(filepath.Join(t.path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sync waits until the destination is on disk, its name included.
func (t *target) sync() error {
	for _, path := range []string{t.path, filepath.Dir(t.path)} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Syncfs(int(f.Fd()))
		f.Close()
		if err != nil {
			return kimg.Wrap(path, err)
		}
	}
	return nil
}

// names lists everything below a directory, by paths relative to it, but what others are staging there.
func names(dir string) (map[string]bool, error) {
	all := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && staging.Is(e.Name()) {
			return fs.SkipDir
		}
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			all[rel] = true
		}
		return nil
	})
	return all, err
}
