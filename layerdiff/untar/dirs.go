//go:build linux

package untar

import (
	"archive/tar"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// How a tar says that something of the layers below is gone.
const (
	markPrefix = ".wh."
	markOpaque = ".wh..opq" // behind the prefix
	markOthers = ".wh."     // what another engine keeps for itself
)

// maxNames bounds the memory, in bytes, that directories take until their metadata is set.
const maxNames = 128 << 20

// dirMeta is a directory whose metadata is set when nothing more is put into it.
type dirMeta struct {
	name     string
	uid, gid uint32
	mode     uint32
	mtime    unix.Timespec
	xattrs   []atfs.Xattr
}

// leave closes the directory of the last member.
func (u *unpacker) leave() {
	if u.at >= 0 && u.at != u.root {
		_ = unix.Close(u.at)
	}
	u.at = -1
}

// parent opens a directory of the layer, "" for its root; it stays open until the next call. With make, those that are
// missing are made.
func (u *unpacker) parent(dir string, make bool) (int, error) {
	if u.at >= 0 && u.dir == dir {
		return u.at, nil
	}
	u.leave()
	if dir == "" {
		u.at, u.dir = u.root, dir
		return u.at, nil
	}
	fd, err := u.open(dir)
	if make && (err == unix.ENOENT || err == unix.ENOTDIR) {
		fd, err = u.makeDirs(dir)
	}
	if err != nil {
		return -1, err
	}
	u.at, u.dir = fd, dir
	return fd, nil
}

// open opens a directory of the layer, through links of the layer if need be.
func (u *unpacker) open(dir string) (int, error) {
	fd, err := atfs.OpenBelow(u.root, dir)
	if err == unix.ELOOP {
		u.linked = true
		return atfs.OpenInRoot(u.root, dir)
	}
	return fd, err
}

// makeDirs makes the directories of a path that no member has made before, as every engine does, and opens the last.
func (u *unpacker) makeDirs(dir string) (int, error) {
	at, err := unix.Dup(u.root)
	for i := 0; i < len(dir) && err == nil; i++ {
		end := len(dir)
		if j := strings.IndexByte(dir[i:], '/'); j >= 0 {
			end = i + j
		}
		var next int
		if next, err = u.enter(at, dir[i:end], dir[:end]); err == nil {
			_ = unix.Close(at)
			at = next
		}
		i = end
	}
	if err != nil {
		_ = unix.Close(at)
		return -1, err
	}
	return at, nil
}

// enter opens the directory name in at, whose whole path is given too, making it if it is not there.
func (u *unpacker) enter(at int, name, whole string) (int, error) {
	fd, err := atfs.OpenDir(at, name)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		var st unix.Stat_t
		if err := atfs.Lstat(at, name, &st); err != nil {
			return -1, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return u.open(whole)
		}
		if !atfs.IsWhiteout(&st) || u.o.KeepMarks {
			return -1, unix.ENOTDIR
		}
		// What the layers below have there is deleted, and something else is put in its place.
		if err := unix.Unlinkat(at, name, 0); err != nil {
			return -1, err
		}
		fd, err = u.newDir(at, name, 0o755)
		if err == nil {
			err = u.setOpaque(fd)
		}
		return fd, err
	}
	if err == unix.ENOENT {
		return u.newDir(at, name, 0o755)
	}
	return fd, err
}

func (u *unpacker) newDir(at int, name string, mode uint32) (int, error) {
	if err := unix.Mkdirat(at, name, mode); err != nil {
		return -1, err
	}
	fd, err := atfs.OpenDir(at, name)
	if err == nil && mode&^u.own.Mode&0o777 != 0 {
		err = unix.Fchmod(fd, mode)
	}
	return fd, err
}

// mkdir makes a directory, or takes the one there is.
func (u *unpacker) mkdir(h *tar.Header, at int, base, name string) error {
	err := unix.Mkdirat(at, base, 0o700)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := atfs.Lstat(at, base, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = nil
		} else {
			if err = u.replace(at, base, name, &st); err == nil {
				err = unix.Mkdirat(at, base, 0o700)
			}
			if err == nil && atfs.IsWhiteout(&st) && !u.o.KeepMarks {
				err = u.opaque(at, base)
			}
		}
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	d := dirMeta{name: name, uid: uint32(h.Uid), gid: uint32(h.Gid), mode: uint32(h.Mode) & 0o7777, mtime: timespec(h), xattrs: xattrs(h)}
	u.dirs = append(u.dirs, d)
	u.names += len(name) + 96
	for _, x := range d.xattrs {
		u.names += len(x.Name) + len(x.Value) + 32
	}
	if u.names > maxNames {
		return kimg.Errorf(kimg.ErrLimit, "", "directories whose names and attributes take more than %d bytes", maxNames)
	}
	return nil
}

// finishDirs gives the directories their metadata, in the order of the tar: of a directory that came twice, the later counts.
func (u *unpacker) finishDirs() error {
	u.leave()
	for _, d := range u.dirs {
		if err := check(u.ctx); err != nil {
			return err
		}
		fd, err := u.openLast(d.name)
		if atfs.Gone(err) {
			continue // something else has taken its place
		}
		if err == nil {
			err = u.finishOpen(fd, d.uid, d.gid, d.mode, true, d.mtime, d.xattrs)
			_ = unix.Close(fd)
		}
		if err != nil {
			return u.explain(&tar.Header{Name: d.name}, err)
		}
	}
	return nil
}

// openLast opens a directory whose last name is no link.
func (u *unpacker) openLast(name string) (int, error) {
	fd, err := atfs.OpenBelow(u.root, name)
	if err != unix.ELOOP {
		return fd, err
	}
	dir, base := path.Split(name)
	at, err := u.parent(strings.TrimSuffix(dir, "/"), false)
	if err != nil {
		return -1, err
	}
	return atfs.OpenDir(at, base)
}

// mark does what a deletion mark says; target is the name behind the prefix.
func (u *unpacker) mark(h *tar.Header, dir, target string) error {
	if target == "" || target == "." || target == ".." {
		return kimg.Errorf(kimg.ErrUnsafe, "", "the deletion of no name")
	}
	if strings.HasPrefix(target, markOthers) && target != markOpaque {
		return nil
	}
	var st unix.Stat_t
	at, err := u.parent(dir, false)
	if err == unix.ENOENT {
		at, err = u.parent(dir, true)
	}
	if err == unix.ENOTDIR {
		return nil // some tools mark what is in a directory that is marked as well
	}
	if err != nil {
		return err
	}
	if target == markOpaque {
		return u.setOpaque(at)
	}
	err = unix.Mknodat(at, target, unix.S_IFCHR, 0)
	if err == unix.EEXIST { // marks are about the layers below: what this layer has there stays
		if err = atfs.Lstat(at, target, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = u.opaque(at, target)
		}
		return err
	}
	if err != nil {
		return err
	}
	return u.chown(h, func(uid, gid int) error { return unix.Fchownat(at, target, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
}

// opaque hides what the layers below have in a directory.
func (u *unpacker) opaque(at int, name string) error {
	fd, err := atfs.OpenDir(at, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.setOpaque(fd)
}

func (u *unpacker) setOpaque(fd int) error {
	name := "trusted.overlay.opaque"
	if u.o.UserNS {
		name = "user.overlay.opaque"
	}
	return atfs.SetXattr(fd, name, "y")
}
