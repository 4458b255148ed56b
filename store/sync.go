package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// sync makes everything written to the store so far durable: data, names and records. Layers, records and containers may
// lie on several file systems; each is synced once. The run root is not: it does not outlive a reboot.
func (s *Store) sync() error {
	if s.noSync {
		return nil
	}
	var errs []error
	seen := map[uint64]bool{}
	for _, root := range []string{s.st.GraphRoot(), s.imageRoot()} {
		for _, dir := range []string{root, root + "/" + s.st.GraphDriverName(), s.recordDir(root, "layers"), s.recordDir(root, "images"), s.recordDir(root, "containers"), s.intentDir()} {
			errs = append(errs, syncOnce(dir, seen))
		}
	}
	return errors.Join(errs...)
}

func syncOnce(dir string, seen map[uint64]bool) error {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if seen[st.Dev] {
		return nil
	}
	seen[st.Dev] = true
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
