//go:build linux

package untar

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/tarmember"
	"github.com/kimg/kimg/internal/tarsplit"
)

const aclDefault = "system.posix_acl_default"

// zeros is what becomes a hole.
var zeros [chunkSize]byte

// block is how finely holes are kept of a file that had some.
const block = 4 << 10

// file makes a regular file; one with content is recorded when its checksum is known.
func (u *unpacker) file(h *tar.Header, dir, base, name string) error {
	at, err := u.parent(dir, true)
	if err != nil {
		return err
	}
	mode := uint32(h.Mode) & 0o7777
	fd := -1
	err = u.place(at, base, name, func() error { fd, err = atfs.Create(at, base, mode&0o777); return err })
	if err != nil {
		return err
	}
	switch {
	case h.Size > 0 && tarmember.Sparse(h):
		err = u.sparse(h, fd, name)
	case h.Size > 0:
		err = u.content(h, fd, name)
	}
	if err == nil {
		err = u.finishOpen(fd, uint32(h.Uid), uint32(h.Gid), mode, false, timespec(h), xattrs(h))
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// content writes a file's content and its entry of the record.
func (u *unpacker) content(h *tar.Header, fd int, name string) error {
	var crc uint64
	err := u.fill(h, fd, chunkSize, func(p []byte) error {
		crc = tarsplit.Update(crc, p)
		return nil
	})
	if err != nil {
		return err
	}
	if u.repeated(name, true) {
		u.twice(name).content = true
	}
	u.split.File(u.raw, "", h.Name, h.Size, crc)
	return nil
}

// fill writes a file's content in pieces of size, which each is given too. Pieces of zeros become holes.
func (u *unpacker) fill(h *tar.Header, fd, size int, each func([]byte) error) error {
	hole := false
	for n := int64(0); n < h.Size; {
		p := u.buf[:min(h.Size-n, int64(size))]
		if _, err := io.ReadFull(u.tar, p); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := each(p); err != nil {
			return err
		}
		before := hole
		if hole = len(p) == size && bytes.Equal(p, zeros[:size]); !hole {
			if before {
				if _, err := unix.Seek(fd, n, unix.SEEK_SET); err != nil {
					return err
				}
			}
			if err := atfs.Write(fd, p); err != nil {
				return err
			}
		}
		n += int64(len(p))
	}
	if hole {
		return unix.Ftruncate(fd, h.Size)
	}
	return nil
}

// sparse writes a file with holes. The record gets what the tar has of it: it could only name the whole file.
func (u *unpacker) sparse(h *tar.Header, fd int, name string) error {
	if u.o.Take != nil {
		if err := u.o.Take(h.Size); err != nil {
			return err
		}
	}
	u.bare(h, name)
	u.raw, u.keep = u.raw[:0], true
	record := func() error {
		err := u.keepContent(int64(len(u.raw)))
		if len(u.raw) > 0 {
			u.split.Raw(u.raw)
		}
		u.raw = u.raw[:0]
		return err
	}
	err := u.fill(h, fd, block, func([]byte) error {
		if len(u.raw) > piece {
			if err := record(); err != nil {
				return err
			}
		}
		return check(u.ctx) // a hole is no reading
	})
	if err == nil {
		err = record()
	}
	u.keep = false
	return err
}

// place makes something under a name, in place of what has the name.
func (u *unpacker) place(at int, base, name string, do func() error) error {
	err := do()
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := atfs.Lstat(at, base, &st); err != nil {
		return err
	}
	if err := u.replace(at, base, name, &st); err != nil {
		return err
	}
	return do()
}

// replace removes what an earlier member has made, after keeping what the record needs of it.
func (u *unpacker) replace(at int, base, name string, st *unix.Stat_t) error {
	flags := 0
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0:
		if err := u.save(at, base, name, st); err != nil {
			return err
		}
	}
	err := unix.Unlinkat(at, base, flags)
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		return kimg.Errorf(kimg.ErrUnsupported, "", "it takes the place of a directory that is not empty")
	}
	return err
}

// finishOpen gives an open file its metadata, after its content. The mode comes last but for the time: a change of owner clears
// special bits, and an access list is part of the mode.
func (u *unpacker) finishOpen(fd int, uid, gid, mode uint32, dir bool, mtime unix.Timespec, attrs []atfs.Xattr) error {
	h := &tar.Header{Uid: int(uid), Gid: int(gid)}
	err := u.chown(h, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) })
	for _, x := range attrs {
		if err == nil {
			err = u.ignored(x.Name, atfs.SetXattr(fd, x.Name, x.Value))
		}
	}
	if err == nil && (dir || mode&^0o777 != 0 || mode&^u.own.Mode != 0 || len(attrs) > 0) {
		err = unix.Fchmod(fd, mode)
	}
	if err == nil {
		err = atfs.SetTimes(fd, mtime)
	}
	return err
}

// finishName gives what is not opened its metadata: links, devices, FIFOs.
func (u *unpacker) finishName(h *tar.Header, at int, base string) error {
	err := u.chown(h, func(uid, gid int) error { return unix.Fchownat(at, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
	for _, x := range xattrs(h) {
		if err == nil {
			err = u.ignored(x.Name, atfs.SetXattrAt(at, base, x.Name, x.Value))
		}
	}
	if err == nil && h.Typeflag != tar.TypeSymlink {
		err = unix.Fchmodat(at, base, uint32(h.Mode)&0o7777, 0)
	}
	if err == nil {
		err = atfs.SetTimesAt(at, base, timespec(h))
	}
	return err
}

// chown sets an owner unless the kernel has done it.
func (u *unpacker) chown(h *tar.Header, do func(uid, gid int) error) error {
	if uint32(h.Uid) == u.own.Uid && uint32(h.Gid) == u.own.Gid {
		return nil
	}
	err := do(h.Uid, h.Gid)
	if err != nil && u.o.IgnoreOwners {
		u.o.Log.Debug("an owner could not be set", "uid", h.Uid, "gid", h.Gid, "error", err)
		return nil
	}
	return err
}

// ignored lets pass that a file system has no attributes, or that a user namespace may not set one.
func (u *unpacker) ignored(name string, err error) error {
	if err == unix.ENOTSUP || err == unix.EPERM && u.o.UserNS {
		u.o.Log.Debug("an attribute could not be set", "attribute", kimg.Escape(name, 255), "error", err)
		return nil
	}
	return err
}

// xattrs returns the attributes of a member. A label of SELinux belongs to the machine it was made on.
func xattrs(h *tar.Header) (list []atfs.Xattr) {
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, tarmember.Xattr); ok && name != "security.selinux" {
			list = append(list, atfs.Xattr{Name: name, Value: value})
		}
	}
	return list
}

func timespec(h *tar.Header) unix.Timespec {
	return unix.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}
}

func check(ctx context.Context) error { return context.Cause(ctx) }
