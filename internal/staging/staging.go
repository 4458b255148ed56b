//go:build linux

// Package staging keeps the blobs of an image that is being written in a hidden directory, out of everybody's sight,
// until they are given their names. Every blob is verified while it is written. Giving names happens in steps that can all
// be taken back.
//
// A staging directory is alive while its lock is held. One whose process died is removed by the next [Open] in the same
// place.
package staging

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
)

// prefix begins the name of every staging directory.
const prefix = ".kimg-partial-"

// MaxBlob is the largest blob, in bytes (failure model: an uncompressed layer).
const MaxBlob = 64 << 30

// Is reports whether a name in a directory is that of a staging directory.
func Is(name string) bool { return strings.HasPrefix(name, prefix) }

// Area is one staging directory. Put, Size and Path are safe for concurrent use.
type Area struct {
	dir     string
	lock    *os.File
	durable bool

	mu    sync.Mutex
	blobs map[digest.Digest]int64
	count int // files ever made in it
}

// Open removes what dead processes left staged in parent and makes a new staging directory there. Unless durable, what is
// staged is never synced. The caller closes it.
func Open(parent string, durable bool) (*Area, error) {
	if err := removeDead(parent); err != nil {
		return nil, err
	}
	for {
		dir, err := os.MkdirTemp(parent, prefix)
		if err != nil {
			return nil, err
		}
		// Between making and locking it, another process may take the directory for a dead one.
		lock, err := acquire(dir)
		if err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
		if lock != nil {
			return &Area{dir: dir, lock: lock, durable: durable, blobs: map[digest.Digest]int64{}}, nil
		}
	}
}

// acquire locks a staging directory. The file is nil when somebody else holds the lock, or the directory has gone.
func acquire(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	var held, named unix.Stat_t
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = errors.Join(unix.Fstat(fd, &held), unix.Lstat(dir, &named))
	}
	if err == nil && held.Ino == named.Ino && held.Dev == named.Dev {
		return f, nil
	}
	f.Close()
	if err == nil || errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return nil, err
}

// removeDead removes the staging directories of this user in parent that nobody holds.
func removeDead(parent string) error {
	f, err := os.Open(parent)
	if errors.Is(err, fs.ErrPermission) { // some temporary directories may be written to and not listed
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !Is(name) {
			continue
		}
		var st unix.Stat_t
		dir := filepath.Join(parent, name)
		if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) {
			continue
		}
		// Remains that cannot be removed do not keep anybody from working beside them.
		if lock, err := acquire(dir); err == nil && lock != nil {
			_ = os.RemoveAll(dir)
			lock.Close()
		}
	}
	return nil
}

// Dir is the staging directory.
func (a *Area) Dir() string { return a.dir }

// File makes an empty file in the staging directory and returns it, open for reading and writing. The caller closes it.
func (a *Area) File() (*os.File, error) {
	return os.OpenFile(a.name(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
}

// name returns a new path in the staging directory.
func (a *Area) name() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	return filepath.Join(a.dir, strconv.Itoa(a.count))
}

// Put stages what r has. An empty digest and a negative size are not known yet; content that does not match a known one
// is class integrity, more than [MaxBlob] bytes class limit. It returns the digest and size of what was staged. r is read
// to its end, also when the blob is staged already.
func (a *Area) Put(ctx context.Context, want digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	f, err := a.File()
	if err != nil {
		return "", 0, err
	}
	got, n, err := a.write(ctx, f, want, size, r)
	if err == nil {
		err = a.Keep(f, got, n)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", 0, errors.Join(err, os.RemoveAll(f.Name()))
	}
	return got, n, nil
}

func (a *Area) write(ctx context.Context, f *os.File, want digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	if size > MaxBlob {
		return "", 0, tooLarge(want)
	}
	// One byte more than allowed is read, so that the limit is an error and not a short blob.
	r = io.LimitReader(streamio.WithContext(ctx, r), MaxBlob+1)
	meter := streamio.NewMeter(nil)
	sink := io.Writer(f)
	if want != "" {
		v, err := streamio.NewVerifier(r, max(size, -1), want)
		if err != nil {
			return "", 0, err
		}
		r = v
	} else {
		meter = streamio.NewMeter(f)
		sink = meter
	}
	n, err := streamio.Copy(sink, r)
	switch {
	case n > MaxBlob:
		return "", 0, tooLarge(want)
	case err != nil:
		return "", 0, err
	case size >= 0 && n != size:
		return "", 0, kimg.Errorf(kimg.ErrIntegrity, meter.Digest().String(), "size: %d bytes, not the declared %d", n, size)
	}
	if want == "" {
		want = meter.Digest()
	}
	return want, n, nil
}

func tooLarge(d digest.Digest) error {
	return kimg.Errorf(kimg.ErrLimit, d.String(), "too-big: a blob of more than %d bytes", int64(MaxBlob))
}

// Keep stages a file that [Area.File] made, once it is written: the caller knows its digest and size, and closes it. Class limit: more
// than [MaxBlob] bytes.
func (a *Area) Keep(f *os.File, d digest.Digest, size int64) error {
	if size > MaxBlob {
		return tooLarge(d)
	}
	if a.durable { // starts writing now what a sync will wait for
		_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := os.Rename(f.Name(), a.Path(d)); err != nil {
		return err
	}
	a.blobs[d] = size
	return nil
}

// Size returns the size of a staged blob, and whether it is staged.
func (a *Area) Size(d digest.Digest) (int64, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	size, ok := a.blobs[d]
	return size, ok
}

// Open opens a staged blob and tells its size. Class notfound when it is not staged. The caller closes the reader.
func (a *Area) Open(d digest.Digest) (io.ReadCloser, int64, error) {
	size, ok := a.Size(d)
	if !ok {
		return nil, 0, kimg.Errorf(kimg.ErrNotFound, kimg.Escape(d.String(), 200), "blob-missing: it was not put")
	}
	f, err := os.Open(a.Path(d))
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

// Path is where a staged blob lies.
func (a *Area) Path(d digest.Digest) string {
	return filepath.Join(a.dir, d.Algorithm().String()+"-"+d.Encoded())
}

// Blobs returns what is staged. The map is the caller's.
func (a *Area) Blobs() map[digest.Digest]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[digest.Digest]int64, len(a.blobs))
	for d, size := range a.blobs {
		all[d] = size
	}
	return all
}

// few is how many files are synced one by one rather than with everything on their file system.
const few = 4

// Sync makes the content of every staged blob durable.
func (a *Area) Sync() error {
	if !a.durable {
		return nil
	}
	blobs := a.Blobs()
	if len(blobs) > few {
		return os.NewSyscallError("syncfs", unix.Syncfs(int(a.lock.Fd())))
	}
	for d := range blobs {
		if err := SyncFile(a.Path(d)); err != nil {
			return err
		}
	}
	return nil
}

// SyncFile makes the content of a file durable.
func SyncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close removes the staging directory and all that is still in it.
func (a *Area) Close() error {
	err := os.RemoveAll(a.dir)
	return errors.Join(err, a.lock.Close())
}
