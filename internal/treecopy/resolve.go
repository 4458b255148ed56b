//go:build linux

package treecopy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
)

// attempts bounds how often a name is resolved again because something was renamed meanwhile.
const attempts = 64

// openInside opens a path below root as a process whose root directory it is would: absolute links and ".." stay inside.
func openInside(root *os.File, name string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range attempts {
		fd, err := unix.Openat2(int(root.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		}
		return nil, &os.PathError{Op: "open", Path: "/" + name, Err: err}
	}
	return nil, kimg.Errorf(kimg.ErrBusy, name, "keeps being renamed")
}

// openDir opens a directory by its name in another one. It follows no link.
func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadFile reads a regular file of the container whose root file system is mounted at root, at most max bytes; more is
// class limit. A file that is absent is class notfound.
func ReadFile(root, name string, max int64) ([]byte, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, kimg.Wrap(root, err)
	}
	defer dir.Close()
	// Without O_NONBLOCK a FIFO would block for ever.
	f, err := openInside(dir, inside(name), unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, kimg.Wrap(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, kimg.Wrap(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, kimg.Errorf(kimg.ErrUnsafe, name, "not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = kimg.Errorf(kimg.ErrLimit, "", "more than %d bytes", max)
	}
	return data, kimg.Wrap(name, err)
}

// directory opens a directory of the container and creates what is missing of it, mode 0755, with the copy's owner.
// The caller closes it.
func (c *copier) directory(name string, undo *cleanup.Stack) (*os.File, error) {
	dir, err := openInside(c.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || name == "." {
		return dir, c.notDirectory(name, err)
	}
	parent, err := c.directory(path.Dir(name), undo)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	base := path.Base(name)
	if err := unix.Mkdirat(int(parent.Fd()), base, 0o755); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil, kimg.Errorf(kimg.ErrExists, "/"+name, "a link that leads nowhere")
		}
		return nil, kimg.Wrap("/"+name, err)
	}
	undo.Add(c.takeBack(path.Dir(name), func(dir *os.File) error {
		return unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR)
	}))
	made, err := openDir(parent, base)
	if err == nil {
		if err = made.Chown(int(c.o.UID), int(c.o.GID)); err == nil {
			err = made.Chmod(0o755) // whatever the umask
		}
		if err != nil {
			made.Close()
		}
	}
	if err != nil {
		return nil, kimg.Wrap("/"+name, err)
	}
	return made, nil
}

func (c *copier) notDirectory(name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) {
		return kimg.Errorf(kimg.ErrExists, "/"+name, "in the container it is not a directory")
	}
	if err != nil {
		return kimg.Wrap("/"+name, err)
	}
	return nil
}

// reopen runs fn on a directory of the container.
func (c *copier) reopen(name string, fn func(*os.File) error) error {
	dir, err := openInside(c.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("taking back: %w", err)
	}
	defer dir.Close()
	if err := fn(dir); err != nil {
		return fmt.Errorf("taking back /%s: %w", name, err)
	}
	return nil
}
