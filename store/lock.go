package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/safeopen"
)

const lockPoll = 5 * time.Millisecond

// lockDigest takes the locks for one layer digest: the library's, which all tools with the same run root share, and in an
// opened store one beside the layers, for those with another run root (other pods, other machines). It is held for the
// few milliseconds of looking and applying. The wait ends when ctx does.
func (s *Store) lockDigest(ctx context.Context, d digest.Digest) (func(), error) {
	unshare, err := s.lockShared(ctx, d)
	if err != nil || !s.opened {
		return unshare, err
	}
	f, err := s.lockStored(ctx, d)
	if err != nil {
		unshare()
		return nil, err
	}
	return func() {
		f.Close()
		unshare()
	}, nil
}

func (s *Store) lockShared(ctx context.Context, d digest.Digest) (func(), error) {
	l, err := s.st.GetDigestLock(d)
	if err != nil {
		return nil, wrap("lock "+d.String(), err)
	}
	got, gone := make(chan error), make(chan struct{})
	go func() { // the library's wait cannot be cancelled, so it may outlive us
		err := guarded("lock "+d.String(), func() error { l.Lock(); return nil })
		select {
		case got <- err:
		case <-gone:
			if err == nil {
				l.Unlock()
			}
		}
	}()
	select {
	case err := <-got:
		return l.Unlock, err
	case <-ctx.Done():
		close(gone)
		return nil, context.Cause(ctx)
	}
}

// lockStored locks one byte of one file, chosen by the digest. Closing the file gives it back.
func (s *Store) lockStored(ctx context.Context, d digest.Digest) (*os.File, error) {
	if err := s.makeIntentDir(); err != nil {
		return nil, wrap("lock "+d.String(), err)
	}
	f, err := safeopen.OpenLock(filepath.Join(s.intentDir(), "digests.lock"))
	if err != nil {
		return nil, wrap("lock "+d.String(), err)
	}
	sum := sha256.Sum256([]byte(d))
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(binary.BigEndian.Uint64(sum[:]) >> 2), Len: 1}
	for {
		switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			f.Close()
			return nil, wrap("lock "+d.String(), err)
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// makeLocked makes a file at path and locks it before it has its name: nobody ever sees it without its lock, and so takes it for
// that of a dead process. Closing it gives the lock back.
func makeLocked(path string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return nil, err
	}
	err = lockFile(f)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), removeIfThere(f.Name()))
	}
	return f, nil
}
