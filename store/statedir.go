package store

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/strict"
)

// Dir returns where the state files of this store's containers lie.
func (s *Store) Dir() copydata.Directory { return stateDir{s} }

type stateDir struct{ s *Store }

// path checks both parts before they become one: ids and names may come from anywhere.
func (d stateDir) path(id, file string) (string, error) {
	if err := strict.ID(id); err != nil {
		return "", err
	}
	if file == "" || file != filepath.Base(file) || file == "." || file == ".." {
		return "", kimg.Errorf(kimg.ErrUnsafe, kimg.Quote(file), "not a file name")
	}
	return filepath.Join(d.s.containerDir(id), file), nil
}

// Read implements copydata.Directory. The library's own call would make the directory where there is none.
func (d stateDir) Read(id, file string, max int64) ([]byte, error) {
	path, err := d.path(id, file)
	if err != nil {
		return nil, err
	}
	data, err := safeopen.ReadFile(path, max)
	return data, kimg.Wrap(file, err)
}

// Replace implements copydata.Directory.
func (d stateDir) Replace(id, file string, generation uint64, data []byte) error {
	return d.replace(id, file, generation, data, nil)
}

// lockContainer lets those who change what belongs to a container take turns, by a lock on its directory itself, which needs
// no lock file and dies with them. Closing the file gives it back.
func (s *Store) lockContainer(id string) (*os.File, error) {
	if _, err := s.st.ContainerDirectory(id); err != nil { // it makes the directory
		return nil, err
	}
	lock, err := os.Open(s.containerDir(id))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, &os.PathError{Op: "lock", Path: s.containerDir(id), Err: err}
	}
	return lock, nil
}

// replace writes a state file, when it is the container's turn. A file that tells no generation is an error, unless aside is given, which gets it out of the way.
func (d stateDir) replace(id, file string, generation uint64, data []byte, aside func(path string) error) error {
	path, err := d.path(id, file)
	if err != nil {
		return err
	}
	lock, err := d.s.lockContainer(id)
	if err != nil {
		return wrap("container "+id, err)
	}
	defer lock.Close()
	have, err := generationOf(path)
	if err != nil && aside != nil {
		have, err = 0, aside(path)
	}
	if err != nil {
		return kimg.Wrap(file, err)
	}
	if have != generation {
		return kimg.Errorf(kimg.ErrBusy, file, "the state of container %s was changed by somebody else meanwhile", id)
	}
	if err := safeopen.RemoveUnfinished(path); err != nil {
		return kimg.Wrap(file, err)
	}
	if err := failpoint.Here("state.save.begin"); err != nil {
		return err
	}
	if err := safeopen.WriteFileAtomic(path, data, 0o600); err != nil {
		return kimg.Wrap(file, err)
	}
	return failpoint.Here("state.save.end")
}

// generationOf returns the generation of the state file at path; 0 when there is none.
func generationOf(path string) (uint64, error) {
	data, err := safeopen.ReadFile(path, copydata.MaxSize)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return copydata.Generation(data)
}
