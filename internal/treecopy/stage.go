//go:build linux

package treecopy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// chunk is how much of a file is copied between two looks at the context.
const chunk = 32 << 20

// stageSource copies one source into the staging directory under the name slot.
func (c *copier) stageSource(ctx context.Context, source, slot string) error {
	// O_NONBLOCK: opening a FIFO must not wait for a writer. Devices are refused below, without reading them.
	f, err := os.OpenFile(source, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return kimg.Wrap(source, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return kimg.Wrap(source, err)
	}
	switch {
	case info.IsDir():
		err = c.stageDir(ctx, f, source, c.stage, slot, slot)
	case info.Mode().IsRegular():
		err = c.stageFile(ctx, f, source, c.stage, slot)
	default:
		return kimg.Errorf(kimg.ErrUnsafe, source, "neither a file nor a directory")
	}
	return kimg.Wrap(source, err)
}

// stageDir copies the open directory source to the new directory name in to. at is its path below the staging directory.
func (c *copier) stageDir(ctx context.Context, source *os.File, from string, to *os.File, name, at string) error {
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: from, Err: err}
	}
	dir, err := openDir(to, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := source.Readdirnames(1024)
		for _, entry := range names {
			if err := c.stageEntry(ctx, source, entry, path.Join(from, entry), dir, path.Join(at, entry)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.dress(source, from, dir)
}

// stageEntry copies the entry name of the directory source into the directory to.
func (c *copier) stageEntry(ctx context.Context, source *os.File, name, from string, to *os.File, at string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(source.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	if !isDir(&st) && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := c.links[id]; ok {
			err := c.link(first, to, name)
			if err == nil || !errors.Is(err, unix.EMLINK) {
				return pathError("link", from, err)
			}
		}
		c.links[id] = at
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return c.stageLink(source, name, from, to, &st)
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		return c.stageNode(name, from, to, &st)
	case unix.S_IFDIR, unix.S_IFREG:
	default:
		return kimg.Errorf(kimg.ErrUnsupported, from, "a socket cannot be copied")
	}
	fd, err := unix.Openat(int(source.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: from, Err: err}
	}
	f := os.NewFile(uintptr(fd), from)
	defer f.Close()
	if isDir(&st) {
		return c.stageDir(ctx, f, from, to, name, at)
	}
	return c.stageFile(ctx, f, from, to, name)
}

// link gives the copy first, a path below the staging directory, another name.
func (c *copier) link(first string, to *os.File, name string) error {
	dir, err := openInside(c.stage, path.Dir(first), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Linkat(int(dir.Fd()), path.Base(first), int(to.Fd()), name, 0)
}

// stageFile copies an open regular file to the new file name in to.
func (c *copier) stageFile(ctx context.Context, source *os.File, from string, to *os.File, name string) (err error) {
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: from, Err: err}
	}
	f := os.NewFile(uintptr(fd), from)
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if unix.IoctlFileClone(fd, int(source.Fd())) != nil { // shares the blocks where the file system can
		for {
			n, err := io.CopyN(f, source, chunk)
			if err == nil {
				err = ctx.Err()
			}
			if errors.Is(err, io.EOF) && n < chunk {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return c.dress(source, from, f)
}

func (c *copier) stageLink(source *os.File, name, from string, to *os.File, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(source.Fd()), name, buf)
	if err == nil {
		err = unix.Symlinkat(string(buf[:n]), int(to.Fd()), name)
	}
	if err == nil {
		err = unix.Fchownat(int(to.Fd()), name, int(c.o.UID), int(c.o.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = touch(to, name, st)
	}
	return pathError("symlink", from, err)
}

func (c *copier) stageNode(name, from string, to *os.File, st *unix.Stat_t) error {
	err := unix.Mknodat(int(to.Fd()), name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	if err == nil {
		err = unix.Fchownat(int(to.Fd()), name, int(c.o.UID), int(c.o.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = chmodNode(to, name, c.mode(st))
	}
	if err == nil {
		err = touch(to, name, st)
	}
	return pathError("mknod", from, err)
}

// chmodNode sets the mode of a node that must not be opened, and of no other: a container that runs could have put a
// link there.
func chmodNode(dir *os.File, name string, mode uint32) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod(self(f), mode)
}

// dress gives a copy its owner, mode, attributes and times, in an order in which none undoes another: a change of owner
// clears set-id bits and capabilities.
func (c *copier) dress(source *os.File, from string, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return pathError("stat", from, err)
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(c.o.UID), int(c.o.GID)); err != nil {
		return pathError("chown", from, err)
	}
	if err := unix.Fchmod(fd, c.mode(&st)); err != nil {
		return pathError("chmod", from, err)
	}
	if err := c.attributes(source, f); err != nil {
		return pathError("copy attributes of", from, err)
	}
	return pathError("set times of", from, unix.UtimesNanoAt(unix.AT_FDCWD, self(f), times(&st), 0))
}

func (c *copier) mode(st *unix.Stat_t) uint32 {
	if c.o.Mode == nil {
		return st.Mode & 0o7777
	}
	mode := uint32(c.o.Mode.Perm())
	for bit, set := range map[os.FileMode]uint32{os.ModeSetuid: unix.S_ISUID, os.ModeSetgid: unix.S_ISGID, os.ModeSticky: unix.S_ISVTX} {
		if *c.o.Mode&bit != 0 {
			mode |= set
		}
	}
	return mode
}

// capability is the extended attribute that holds a file's capabilities.
const capability = "security.capability"

// attributes copies user attributes and file capabilities. Others hold ids or labels of the host that mean nothing in
// the container.
func (c *copier) attributes(source, f *os.File) error {
	names, err := listAttributes(int(source.Fd()))
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != capability && !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		buf := make([]byte, 64<<10) // the kernel's limit for one value
		n, err := unix.Fgetxattr(int(source.Fd()), name, buf)
		if err != nil {
			return err
		}
		value := buf[:n]
		if name == capability {
			value = forRoot(value, c.o.Root)
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil {
			return err
		}
	}
	return nil
}

func listAttributes(fd int) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, err
	}
	var names []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// forRoot turns file capabilities of the host's root (revision 2, 20 bytes) into those of another root (revision 3, which
// ends in that root's id). Others are left as they are.
func forRoot(value []byte, root uint32) []byte {
	const revision2, revision3, flags = 0x02000000, 0x03000000, 0x00ffffff
	if root == 0 || len(value) != 20 {
		return value
	}
	magic := binary.LittleEndian.Uint32(value)
	if magic&^flags != revision2 {
		return value
	}
	out := make([]byte, 24)
	copy(out, value)
	binary.LittleEndian.PutUint32(out, magic&flags|revision3)
	binary.LittleEndian.PutUint32(out[20:], root)
	return out
}

func touch(dir *os.File, name string, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(int(dir.Fd()), name, times(st), unix.AT_SYMLINK_NOFOLLOW)
}

func times(st *unix.Stat_t) []unix.Timespec { return []unix.Timespec{st.Atim, st.Mtim} }

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}
