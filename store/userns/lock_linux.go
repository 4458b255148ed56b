package userns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containers/storage/pkg/unshare"

	"github.com/kimg/kimg"
	"golang.org/x/sys/unix"
)

// Locks here are open file description locks: the kernel drops them when the last descriptor closes, however its owner
// dies, so a held lock is a living owner. They pass to a child with the descriptor.

// setLock takes or drops a lock on a whole file: kind is unix.F_RDLCK, F_WRLCK or F_UNLCK. Without wait a lock that
// somebody else holds is EAGAIN.
func setLock(f *os.File, kind int16, wait bool) error {
	cmd := unix.F_OFD_SETLK
	if wait {
		cmd = unix.F_OFD_SETLKW
	}
	lk := unix.Flock_t{Type: kind, Whence: io.SeekStart}
	for {
		err := unix.FcntlFlock(f.Fd(), cmd, &lk)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// heldByOthers reports whether somebody else holds any lock on a file.
func heldByOthers(f *os.File) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
		return false, err
	}
	return lk.Type != unix.F_UNLCK, nil
}

// lockWait bounds the wait for locks that are only ever held for moments.
const lockWait = 10 * time.Second

// lockSoon takes a lock that others hold for moments only.
func lockSoon(f *os.File, kind int16) error {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := setLock(f, kind, false)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		select {
		case <-ctx.Done():
			return kimg.Errorf(kimg.ErrBusy, f.Name(), "another process has held this lock for %v", lockWait)
		case <-time.After(pause):
		}
	}
}

// room is the directory in the run directory where the keeper and its users meet. Files in it:
//
//	start    held while somebody chooses or starts a keeper, so that there is never more than one
//	users    held shared by everyone who uses the keeper's namespace; the keeper leaves when it gets it alone
//	keeper   held by the keeper as long as it lives; says who it is
type room string

const roomName = "kimg-userns"

// openRoom makes the directory when it is missing and refuses one that others could have prepared.
func openRoom(runRoot string) (room, error) {
	dir := filepath.Join(runRoot, roomName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return "", kimg.Errorf(kimg.ErrUnsafe, dir, "must be a directory that only its user can write to")
	}
	return room(dir), nil
}

// open opens one of the room's files, making it when it is missing.
func (r room) open(name string) (*os.File, error) {
	fd, err := unix.Open(filepath.Join(string(r), name),
		unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(string(r), name), err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(string(r), name)), nil
}

// openLocked opens one of the room's files and takes a lock on it that is held for moments only.
func (r room) openLocked(name string, kind int16) (*os.File, error) {
	f, err := r.open(name)
	if err != nil {
		return nil, err
	}
	if err := lockSoon(f, kind); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// defaultRunRoot is where containers/storage puts this user's run directory when nothing else is configured.
func defaultRunRoot(uid int) string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", uid)
		if !privateDir(dir, uid) {
			dir = filepath.Join(os.TempDir(), fmt.Sprintf("storage-run-%d", uid))
		}
	}
	return filepath.Join(dir, "containers")
}

// RuntimeDir returns the runtime directory of an ordinary user where no variable names it, as podman finds it; empty: there is none.
func RuntimeDir() string {
	uid := unshare.GetRootlessUID()
	if dir := fmt.Sprintf("/run/user/%d", uid); uid != 0 && privateDir(dir, os.Geteuid()) {
		return dir
	}
	return ""
}

// privateDir reports whether a directory is this user's and nobody else can write to it.
func privateDir(dir string, uid int) bool {
	st, err := os.Lstat(dir)
	if err != nil || !st.IsDir() {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == uid && st.Mode().Perm()&0o722 == 0o700
}
