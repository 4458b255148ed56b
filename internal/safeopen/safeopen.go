//go:build unix

// Package safeopen opens files whose path or content someone else may have chosen. It opens regular files only, never
// follows a link in the last path element, never blocks on a FIFO or a device, and replaces files atomically.
package safeopen

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

// Open opens path for reading. Anything but a regular file (a link, directory, FIFO, socket or device) is refused with
// class unsafe, without blocking and, unless it has just taken the place of something else, without touching it. The caller closes the file.
func Open(path string) (*os.File, error) {
	return openFlags(path, os.O_RDONLY, 0)
}

// OpenLock opens or creates the lock file path for reading and writing, under the same rules as [Open]. Its content
// is nobody's business. The caller closes the file.
func OpenLock(path string) (*os.File, error) {
	return openFlags(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// OpenReadWrite opens an existing file for reading and writing, under the same rules as [Open]. The caller closes the file.
func OpenReadWrite(path string) (*os.File, error) {
	return openFlags(path, os.O_RDWR, 0)
}

// OpenIn opens the regular file rel below the directory root for reading, under the rules of [Open] for every element
// of rel: with no link anywhere on the way the file is inside root, whoever made the tree. rel is slash-separated and
// clean; anything else is class unsafe. The caller closes the file.
func OpenIn(root *os.File, rel string) (*os.File, error) {
	if !filepath.IsLocal(rel) || rel != filepath.Clean(rel) || rel == "." {
		return nil, kimg.Errorf(kimg.ErrUnsafe, kimg.Escape(rel, 200), "not a plain path")
	}
	defer runtime.KeepAlive(root)
	at, names := int(root.Fd()), strings.Split(rel, "/")
	for i, name := range names {
		flags, fd := unix.O_DIRECTORY, -1
		var err error
		if i == len(names)-1 {
			flags, err = 0, special(at, name, rel)
		}
		if err == nil {
			fd, err = openAt(at, name, flags)
		}
		if i > 0 {
			unix.Close(at)
		}
		if err != nil {
			return nil, inputError(name, err)
		}
		at = fd
	}
	return regular(os.NewFile(uintptr(at), rel), rel)
}

func openAt(at int, name string, flags int) (fd int, err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		fd, err = unix.Openat(at, name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	return fd, err
}

// inputError classifies why a name could not be opened; what is no file or directory is class unsafe.
func inputError(name string, err error) error {
	if kimg.ClassOf(err) == kimg.ErrUnsafe {
		return err
	}
	if slices.ContainsFunc([]error{unix.ELOOP, unix.ENXIO, unix.EISDIR, unix.ENOTDIR}, func(e error) bool { return errors.Is(err, e) }) {
		return kimg.Errorf(kimg.ErrUnsafe, kimg.Escape(name, 200), "not a regular file: %w", err)
	}
	return &os.PathError{Op: "open", Path: kimg.Escape(name, 200), Err: err}
}

// special refuses what even to open may do something.
func special(at int, name, path string) error {
	var st unix.Stat_t
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // opening it says more
	}
	is := map[uint32]os.FileMode{unix.S_IFIFO: os.ModeNamedPipe, unix.S_IFSOCK: os.ModeSocket, unix.S_IFCHR: os.ModeDevice, unix.S_IFBLK: os.ModeDevice}
	if m := is[uint32(st.Mode)&unix.S_IFMT]; m != 0 {
		return kimg.Errorf(kimg.ErrUnsafe, path, "not a regular file but %s", kind(m))
	}
	return nil
}

func openFlags(path string, flags int, mode os.FileMode) (*os.File, error) {
	if err := special(unix.AT_FDCWD, path, path); err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO without a writer would block the open for ever. It has no effect on regular files.
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
			return nil, kimg.Errorf(kimg.ErrUnsafe, "", "not a regular file: %w", err)
		}
		return nil, err
	}
	return regular(f, path)
}

// regular closes what is not a regular file.
func regular(f *os.File, path string) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, kimg.Errorf(kimg.ErrUnsafe, path, "not a regular file but %s", kind(info.Mode()))
	}
	return f, nil
}

// ReadFile reads the whole of a file under the rules of [Open]. More than max bytes is class limit; at most max+1 bytes
// are ever held.
func ReadFile(path string, max int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return readAll(f, path, max)
}

// ReadIn is [ReadFile] for a file that [OpenIn] opens.
func ReadIn(root *os.File, rel string, max int64) ([]byte, error) {
	f, err := OpenIn(root, rel)
	if err != nil {
		return nil, err
	}
	return readAll(f, rel, max)
}

func readAll(f *os.File, path string, max int64) ([]byte, error) {
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, kimg.Errorf(kimg.ErrLimit, path, "more than %d bytes", max)
	}
	return data, nil
}

// Nameless makes a temporary file in a directory, as [os.CreateTemp] does, and takes its name away: it is gone when it is closed.
// What a kill in between leaves begins with prefix.
func Nameless(dir, prefix string) (*os.File, error) {
	f, err := os.CreateTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// WriteFileAtomic makes path hold data and nothing else, or leaves it as it was: the data goes into a temporary file in
// the same directory, which is synced and renamed, and the directory is synced. Whatever path was before (also a
// link) is replaced, not written through.
func WriteFileAtomic(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, unfinished(path))
	if err != nil {
		return err
	}
	err = failpoint.Here("file.write.begin")
	if err == nil {
		err = fill(tmp, data, mode)
	}
	if err == nil {
		err = failpoint.Here("file.write.synced")
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	if err := failpoint.Here("file.write.renamed"); err != nil {
		return err
	}
	return SyncDir(dir)
}

// unfinished is how the names of temporary files for path begin.
func unfinished(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// Unfinished lists what calls of [WriteFileAtomic] for path that go on, or were killed, have made.
func Unfinished(path string) ([]string, error) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished(path)) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, err
}

// RemoveUnfinished removes what killed calls of [WriteFileAtomic] for path have left. The caller holds a lock that everybody
// who writes path takes.
func RemoveUnfinished(path string) error {
	files, err := Unfinished(path)
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

func fill(f *os.File, data []byte, mode os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// SyncDir makes the names inside a directory durable.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func kind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&os.ModeNamedPipe != 0:
		return "a FIFO"
	case m&os.ModeSocket != 0:
		return "a socket"
	case m&os.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}
