//go:build linux

// Package treecopy copies files and directories of the host into a container's root file system. Names and links
// inside the container are resolved inside the container only: nothing outside its root is ever written.
//
// A copy first goes into a directory of its own at the container's root, with owners, modes and everything else in
// place. Only when that is complete and on disk is it moved into place, by renames that are taken back, last first, when
// one of them fails. A process killed in between leaves that directory: [Clear] removes it. Killed during the renames it
// leaves whole files, some new and some old; repeating the copy completes it.
package treecopy

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
)

// prefix of the name of a staging directory at the container's root.
const prefix = ".kimg-add-"

// Options say how copies look. The zero value gives everything to the host's root and keeps the source's modes.
type Options struct {
	UID, GID uint32       // owner of everything that is copied or created, as the host's ids
	Root     uint32       // the host's id of the container's root, who file capabilities are for
	Mode     *os.FileMode // permission bits of everything but links; nil keeps the source's. Set-id and sticky bits count
	NoSync   bool         // do not wait for the disk
}

// Copy copies sources into the container whose root file system is mounted at root. A directory's content goes into
// dst, which is created if need be; a file becomes dst, or goes into it when dst is a directory, ends in a slash, or
// when there are several sources. Links among the sources that are named are followed, links inside them are copied.
// An existing file is replaced, an existing directory keeps its owner and mode, a link to a directory inside the
// container is followed. Modes, times, hard links, user extended attributes and file capabilities are kept.
//
// A failure leaves the container as it was. A source that is neither file nor directory is class unsafe; a file where
// the container has a directory, or the other way round, is class exists.
func Copy(ctx context.Context, root string, sources []string, dst string, o Options) (err error) {
	c, err := begin(root, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	for i, source := range sources {
		if err := c.stageSource(ctx, source, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if err := c.sync(); err != nil {
		return err
	}
	var undo cleanup.Stack
	for i, source := range sources {
		if err := c.publish(ctx, source, strconv.Itoa(i), dst, len(sources) > 1, &undo); err != nil {
			if back := undo.Run(ctx); back != nil {
				c.log(back)
			}
			return err
		}
	}
	return c.sync()
}

// copier is one copy under way.
type copier struct {
	o     Options
	root  *os.File // the container's root
	stage *os.File // the staging directory, locked
	name  string   // its name at the root
	links map[inode]string
	undo  error // what could not be taken back
}

// inode identifies a file of the host that has several names.
type inode struct{ dev, ino uint64 }

func begin(root string, o Options) (*copier, error) {
	dir, err := os.OpenFile(root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, kimg.Wrap(root, err)
	}
	c := &copier{o: o, root: dir, name: prefix + rand.Text(), links: map[inode]string{}}
	if err := unix.Mkdirat(int(dir.Fd()), c.name, 0o700); err != nil {
		dir.Close()
		return nil, kimg.Wrap(root, err)
	}
	c.stage, err = openDir(dir, c.name)
	if err == nil {
		err = unix.Flock(int(c.stage.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(kimg.Wrap(root, err), c.end())
	}
	return c, nil
}

// log keeps what could not be taken back: it is reported behind the failure that made it necessary.
func (c *copier) log(err error) { c.undo = errors.Join(c.undo, err) }

// end removes the staging directory.
func (c *copier) end() error {
	err := removeAll(c.root, c.name)
	if c.stage != nil {
		c.stage.Close()
	}
	c.root.Close()
	return errors.Join(c.undo, err)
}

func (c *copier) sync() error {
	if c.o.NoSync {
		return nil
	}
	return unix.Syncfs(int(c.root.Fd()))
}

// Stale reports whether a directory, an overlay's upper or a container's root, holds what a killed copy left.
func Stale(dir string) bool {
	left, err := filepath.Glob(filepath.Join(escapeGlob(dir), prefix+"*"))
	return err == nil && len(left) > 0
}

// Clear removes what killed copies left in the container whose root file system is mounted at root. Copies that are
// under way are left alone.
func Clear(root string) error {
	dir, err := os.OpenFile(root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return kimg.Wrap(root, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return kimg.Wrap(root, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			err = errors.Join(err, clearOne(dir, name))
		}
	}
	return err
}

func clearOne(dir *os.File, name string) error {
	stage, err := openDir(dir, name)
	if err != nil {
		return kimg.Wrap(name, err)
	}
	defer stage.Close()
	if unix.Flock(int(stage.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // its copy is alive
	}
	return removeAll(dir, name)
}

func removeAll(dir *os.File, name string) error {
	root, err := os.OpenRoot(self(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}

// self is a path to an open directory that no rename can divert.
func self(dir *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) }

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// inside makes a path of the container relative to its root: "/a/../b" becomes "b", "/" becomes ".".
func inside(name string) string {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return "."
	}
	return clean[1:]
}
