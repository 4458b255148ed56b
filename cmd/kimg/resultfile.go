package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
)

// resultFile is a file a command writes its result to. It is made, with room for the result, before the command
// changes anything, so that a full disk or a wrong path is found while nothing has happened yet.
type resultFile struct {
	path string
	f    *os.File
	must bool
}

// mustBeNew is the mode of a result file that may not replace another.
const mustBeNew, mayReplace = true, false

// newResultFile prepares path. An empty path makes a file that takes everything and is nowhere.
func newResultFile(path string, room int64, onlyNew bool) (*resultFile, error) {
	if path == "" {
		return &resultFile{}, nil
	}
	if _, err := os.Lstat(path); onlyNew && err == nil {
		return nil, kimg.Errorf(kimg.ErrExists, path, "the file exists")
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return nil, kimg.Wrap(path, err)
	}
	r := &resultFile{path: path, f: f, must: onlyNew}
	err = f.Chmod(0o644)
	if err == nil && room > 0 {
		if err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, room); err == unix.EOPNOTSUPP {
			err = nil
		}
	}
	if err != nil {
		r.abort()
		return nil, kimg.Wrap(path, err)
	}
	return r, nil
}

// write puts the result into the file and the file into its place, durably.
func (r *resultFile) write(data []byte) error {
	if r.f == nil {
		return nil
	}
	if _, err := r.f.Write(data); err != nil {
		return kimg.Wrap(r.path, err)
	}
	return r.finish()
}

// finish puts what was written to the file in its place, durably.
func (r *resultFile) finish() error {
	err := r.f.Sync()
	if err == nil && r.must {
		err = os.Link(r.f.Name(), r.path) // fails when somebody was faster
	} else if err == nil {
		if err = os.Rename(r.f.Name(), r.path); err == nil {
			r.close()
			return safeopen.SyncDir(filepath.Dir(r.path))
		}
	}
	r.abort()
	if err != nil {
		return kimg.Wrap(r.path, err)
	}
	return safeopen.SyncDir(filepath.Dir(r.path))
}

// abort removes the file when it was not finished. It may be called at any time.
func (r *resultFile) abort() {
	if r.f != nil {
		_ = os.Remove(r.f.Name())
		r.close()
	}
}

func (r *resultFile) close() {
	_ = r.f.Close()
	r.f = nil
}
