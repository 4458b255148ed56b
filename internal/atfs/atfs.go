//go:build linux

// Package atfs opens, reads and describes files relative to directories that are already open, one path component at a
// time. No call follows a symbolic link in that component, so whoever can rename things in the tree meanwhile cannot make
// a walk leave it. Errors are bare error numbers: the caller knows the path and names it.
package atfs

import (
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openFlags keep a look-up inside its directory, keep a FIFO from blocking it and keep it out of child processes.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func openat(at int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error { fd, err = unix.Openat(at, name, flags, mode); return err })
	return fd, err
}

// OpenRoot opens the directory a tree begins in. Links in path are followed: the caller chose it.
func OpenRoot(path string) (int, error) {
	return openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// OpenDir opens a directory. Anything else is ENOTDIR or ELOOP.
func OpenDir(at int, name string) (int, error) {
	return openQuietly(at, name, unix.O_RDONLY|unix.O_DIRECTORY|openFlags)
}

// OpenFile opens a file for reading. The caller checks with fstat that it got the type of file it expected.
func OpenFile(at int, name string) (int, error) {
	return openQuietly(at, name, unix.O_RDONLY|openFlags)
}

// openQuietly leaves the access time alone where the kernel allows it, which is for owners and the privileged.
func openQuietly(at int, name string, flags int) (int, error) {
	fd, err := openat(at, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		return openat(at, name, flags, 0)
	}
	return fd, err
}

// Create makes a new file for writing. The process's umask applies to mode.
func Create(at int, name string, mode uint32) (int, error) {
	return openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|openFlags, mode)
}

// Probe tells how the kernel makes a new file with mode 0777 in a directory: whose it is, and its mode, which has the say of
// the process's umask. Asking once saves asking for every file. The name must not be taken; it is free again afterwards.
func Probe(at int, name string) (st unix.Stat_t, err error) {
	fd, err := Create(at, name, 0o777)
	if err != nil {
		return st, err
	}
	return st, errors.Join(unix.Fstat(fd, &st), unix.Close(fd), unix.Unlinkat(at, name, 0))
}

// OpenBelow opens a directory by a path of several names, below the open directory at. A link anywhere in it is ELOOP.
func OpenBelow(at int, path string) (int, error) {
	return openat2(at, path, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenInRoot is OpenBelow that follows links as a process does whose root is the open directory: they never lead out of it.
func OpenInRoot(root int, path string) (int, error) {
	return openat2(root, path, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

func openat2(at int, path string, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve}
	err = retry(func() error {
		fd, err = unix.Openat2(at, path, &how)
		if err == unix.EAGAIN { // something was renamed meanwhile
			return unix.EINTR
		}
		return err
	})
	return fd, err
}

// Lstat describes a name.
func Lstat(at int, name string, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstatat(at, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

// ReadLink returns the target of a symbolic link.
func ReadLink(at int, name string) (string, error) {
	for buf := make([]byte, 256); ; buf = make([]byte, 4*len(buf)) {
		n, err := unix.Readlinkat(at, name, buf)
		if err != nil || n < len(buf) {
			return string(buf[:max(n, 0)]), err
		}
	}
}

// Read reads until p is full or the file ends. A read that stops at size although there was room for more found the end of a
// file that is said to be that long, and is not asked to find it again; a negative size says nothing.
func Read(fd int, p []byte, size int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Read(fd, p[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, nil
		default:
			if n += m; int64(n) == size {
				return n, nil
			}
		}
	}
	return n, nil
}

// Write writes all of p.
func Write(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && err != unix.EINTR {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// SetTimes sets the modification time of an open file and leaves its access time alone.
func SetTimes(fd int, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	// The wrapper in x/sys has no form for a file descriptor alone.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// SetTimesAt is SetTimes for a name, which may be a symbolic link.
func SetTimesAt(at int, name string, mtime unix.Timespec) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	return unix.UtimesNanoAt(at, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// IsWhiteout reports whether a file is overlay's mark of a deleted name.
func IsWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// Gone reports whether an error says that a name listed a moment ago is no longer there, or is another type of file now.
func Gone(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE, unix.ENXIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// proc returns a path for the calls that have no form relative to a directory. The kernel resolves it through the open
// directory; only the last component is looked up, by calls that do not follow links.
func proc(at int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(at) + "/" + name
}
