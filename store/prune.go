package store

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/safeopen"
)

// stagingHome is where the staging directories of the store lie.
func (s *Store) stagingHome() string {
	return filepath.Join(s.imageRoot(), s.st.GraphDriverName(), "staging")
}

// stagingDirs lists the staging directories of the store, living and dead.
func (s *Store) stagingDirs() ([]string, error) {
	base := s.stagingHome()
	entries, err := os.ReadDir(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dirs := make([]string, 0, len(entries))
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(base, e.Name()))
	}
	return dirs, nil
}

// pruneStaging removes the staging directories of killed processes.
func (s *Store) pruneStaging() error {
	dirs, err := s.stagingDirs()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		lock, err := staleStaging(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if lock == nil {
			continue
		}
		errs = append(errs, os.RemoveAll(dir), lock.Close())
	}
	return errors.Join(errs...)
}

// staleStaging takes the lock of a staging directory nobody fills; nil when somebody does. Our own lock is asked first: it
// answers also for other parts of this process. The library's lock is a plain fcntl lock, which this process would lose
// by merely opening and closing the file, so it is only touched in directories too old to be anybody's work here.
func staleStaging(dir string) (*os.File, error) {
	name := ownLock
	if _, err := os.Lstat(filepath.Join(dir, ownLock)); err != nil {
		info, err := os.Lstat(dir)
		if err != nil || time.Since(info.ModTime()) < stagingAge {
			return nil, nil
		}
		name = "staging.lock"
	}
	f, err := safeopen.OpenReadWrite(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) && name != ownLock { // nobody can hold what is not there; making it would give the directory a new time
		f, err = os.Open(dir)
		if err == nil {
			return f, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, err
	}
	err = lockFile(f)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, nil
	}
	return nil, err
}
