//go:build linux

package treecopy

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
)

// publish moves one staged source to its place.
func (c *copier) publish(ctx context.Context, source, slot, dst string, several bool, undo *cleanup.Stack) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(c.stage.Fd()), slot, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return kimg.Wrap(source, err)
	}
	target := inside(dst)
	if isDir(&st) {
		to, err := c.directory(target, undo)
		if err != nil {
			return err
		}
		defer to.Close()
		return c.merge(ctx, c.stage, slot, slot, to, target, undo)
	}
	base := filepath.Base(source)
	if several || strings.HasSuffix(dst, "/") || dst == "" || c.isDirectory(target) {
		target = path.Join(target, base)
	}
	to, err := c.directory(path.Dir(target), undo)
	if err != nil {
		return err
	}
	defer to.Close()
	return c.place(ctx, c.stage, slot, slot, to, target, undo)
}

// isDirectory reports whether the container has a directory of this name, or a link to one.
func (c *copier) isDirectory(name string) bool {
	dir, err := openInside(c.root, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	dir.Close()
	return true
}

// merge moves the content of the staged directory name in from to the open directory to. staged and target are the
// paths of both, below the staging directory and below the container's root.
func (c *copier) merge(ctx context.Context, from *os.File, name, staged string, to *os.File, target string, undo *cleanup.Stack) error {
	dir, err := openDir(from, name)
	if err != nil {
		return kimg.Wrap("/"+target, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return kimg.Wrap("/"+target, err)
	}
	slices.Sort(names)
	for _, entry := range names {
		if err := c.place(ctx, dir, entry, path.Join(staged, entry), to, path.Join(target, entry), undo); err != nil {
			return err
		}
	}
	return nil
}

// place moves the staged entry name in from to target, whose directory is to: a rename when nothing is there, an
// exchange when a file is replaced, a merge when both are directories.
func (c *copier) place(ctx context.Context, from *os.File, name, staged string, to *os.File, target string, undo *cleanup.Stack) error {
	if err := ctx.Err(); err != nil {
		return kimg.Wrap("/"+target, err)
	}
	base := path.Base(target)
	var fresh, old unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &fresh, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return kimg.Wrap("/"+target, err)
	}
	err := unix.Fstatat(int(to.Fd()), base, &old, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return c.move(from, name, staged, to, target, unix.RENAME_NOREPLACE, undo)
	case err != nil:
		return kimg.Wrap("/"+target, err)
	case isDir(&fresh):
		into, err := openInside(c.root, target, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return c.notDirectory(target, err)
		}
		defer into.Close()
		return c.merge(ctx, from, name, staged, into, target, undo)
	case isDir(&old):
		return kimg.Errorf(kimg.ErrExists, "/"+target, "in the container it is a directory")
	}
	return c.move(from, name, staged, to, target, unix.RENAME_EXCHANGE, undo)
}

// move renames with flags, which are such that the same rename the other way round takes it back.
func (c *copier) move(from *os.File, name, staged string, to *os.File, target string, flags uint, undo *cleanup.Stack) error {
	base := path.Base(target)
	if err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), base, flags); err != nil {
		return kimg.Wrap("/"+target, err)
	}
	undo.Add(c.takeBack(path.Dir(target), func(dir *os.File) error {
		return c.reopen(path.Join(c.name, path.Dir(staged)), func(stage *os.File) error {
			return unix.Renameat2(int(dir.Fd()), base, int(stage.Fd()), path.Base(staged), flags)
		})
	}))
	return nil
}

// takeBack makes an undo step that works on a directory of the container. It opens the directory again, so that a long
// copy does not hold thousands of them open.
func (c *copier) takeBack(name string, fn func(*os.File) error) func(context.Context) error {
	return func(context.Context) error { return c.reopen(name, fn) }
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
