package layerdiff

import (
	"archive/tar"
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// kind says what becomes of an entry.
type kind uint8

const (
	kindNone     kind = iota // nothing: it is as below, or deletes what is not there
	kindFile                 // a regular file
	kindNode                 // a symbolic link, a device, a FIFO
	kindDir                  // a directory
	kindWhiteout             // a deletion
	kindLeftOut              // not in the layer, and listed
)

// entry is one name of the upper tree on its way into the layer.
type entry struct {
	dir  *dir
	name string
	typ  uint8 // unix.DT_*
	sub  *dir  // the directory itself, for a directory

	kind   kind
	st     unix.Stat_t
	uid    uint32 // as the container sees them
	gid    uint32
	attrs  attrs
	link   string // target of a symbolic link
	reason string // why it is left out, if it is

	below   bool        // the layers below show something of this name
	belowSt unix.Stat_t // what that is

	// Where in its batch's buffer the tar member is: header, content, end with padding. head < 0 when it is not there.
	head, body, end int
	crc             uint64
}

// path returns the path of the entry for people.
func (e *entry) path() string { return e.dir.show(e.name) }

// linked reports whether a file has other names, so that its place in the layer depends on which comes first.
func (e *entry) linked() bool { return e.kind != kindDir && e.st.Nlink > 1 }

// header returns the tar header of the entry as a file of its own.
func (e *entry) header() header {
	h := header{
		dir: e.dir.path, base: e.name, mode: e.st.Mode & 0o7777, uid: e.uid, gid: e.gid, mtime: int64(e.st.Mtim.Sec),
		link: e.link, xattrs: e.attrs.layer,
	}
	switch e.typ {
	case unix.DT_REG:
		h.typ, h.size = tar.TypeReg, e.st.Size
	case unix.DT_LNK:
		h.typ = tar.TypeSymlink
	case unix.DT_FIFO:
		h.typ = tar.TypeFifo
	case unix.DT_CHR:
		h.typ = tar.TypeChar
	case unix.DT_BLK:
		h.typ = tar.TypeBlock
	}
	if h.typ == tar.TypeChar || h.typ == tar.TypeBlock {
		h.major, h.minor = unix.Major(uint64(e.st.Rdev)), unix.Minor(uint64(e.st.Rdev))
	}
	if e.kind == kindWhiteout {
		return header{dir: e.dir.path, base: ".wh." + e.name, typ: tar.TypeReg}
	}
	return h
}

// header returns the tar header of a directory.
func (d *dir) header() header {
	return header{
		dir: d.parent.path, base: d.name + "/", typ: tar.TypeDir, mode: d.st.Mode & 0o7777, uid: d.uid, gid: d.gid,
		mtime: int64(d.st.Mtim.Sec), xattrs: d.attrs.layer,
	}
}

// opaqueHeader returns the member after an opaque directory's own that hides what is below.
func (d *dir) opaqueHeader() header {
	return header{dir: d.path, base: ".wh..wh..opq", typ: tar.TypeReg}
}

// inspect finds out what an entry that is no directory is and whether it differs from what is below. For a regular file
// that belongs into the layer it returns the file, open, at its beginning. scratch is for comparing contents.
func (t *tree) inspect(e *entry, scratch []byte) (fd int, err error) {
	if e.typ == unix.DT_REG {
		return t.inspectFile(e, scratch)
	}
	path := e.path()
	at := e.dir.fd
	if err := atfs.Lstat(at, e.name, &e.st); err != nil {
		return -1, reading(path, err)
	}
	if direntType(e.st.Mode) != e.typ {
		return -1, reading(path, unix.ENOENT)
	}
	if e.typ == unix.DT_SOCK {
		e.kind, e.reason = kindLeftOut, "a socket"
	}
	if e.typ == unix.DT_SOCK || atfs.IsWhiteout(&e.st) {
		// A socket stays out, but what it replaced is gone all the same.
		err := t.lookBelow(e)
		if e.below && e.dir.hidden == nil {
			e.kind = kindWhiteout
		}
		return -1, err
	}
	e.kind = kindNode
	all, err := atfs.XattrsAt(at, e.name, wanted)
	if err == nil && e.typ == unix.DT_LNK {
		e.link, err = atfs.ReadLink(at, e.name)
	}
	var now unix.Stat_t
	if err == nil {
		err = atfs.Lstat(at, e.name, &now)
	}
	if err != nil {
		return -1, reading(path, err)
	}
	if e.linked() {
		now.Ctim = e.st.Ctim // staging another of its names as a hard link may just have changed it
	}
	if err := e.stillIs(&now); err != nil {
		return -1, err
	}
	if err := t.judge(e, all); err != nil {
		return -1, err
	}
	same, err := t.isBelow(e, -1, scratch)
	if same {
		e.kind = kindNone
	}
	return -1, err
}

func (t *tree) inspectFile(e *entry, scratch []byte) (int, error) {
	fd, err := atfs.OpenFile(e.dir.fd, e.name)
	if err != nil {
		return -1, reading(e.path(), err)
	}
	if err := t.inspectOpen(e, fd, scratch); err != nil || e.kind != kindFile {
		closeRead(fd)
		return -1, err
	}
	return fd, nil
}

// inspectOpen inspects a file that is open, and leaves it open.
func (t *tree) inspectOpen(e *entry, fd int, scratch []byte) error {
	if err := retryStat(fd, &e.st); err != nil {
		return reading(e.path(), err)
	}
	if e.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return reading(e.path(), unix.ENOENT)
	}
	all, err := atfs.Xattrs(fd, wanted)
	if err != nil {
		return reading(e.path(), err)
	}
	if err := t.judge(e, all); err != nil {
		return err
	}
	same, err := t.isBelow(e, fd, scratch)
	if err == nil && !same {
		e.kind = kindFile
	}
	return err
}

// judge fills in owners and attributes and refuses what no layer can carry.
func (t *tree) judge(e *entry, all []atfs.Xattr) (err error) {
	if len(all) > 0 {
		if e.attrs, err = t.attributes(e.path, all); err != nil {
			return err
		}
		if _, err := view.Marks(t.prefix, e.attrs.own, false); err != nil {
			return kimg.Wrap(kimg.Escape(e.path(), 256), err)
		}
	}
	e.uid, e.gid, err = t.owner(e.path, e.st.Uid, e.st.Gid)
	return err
}

// stillIs compares the file with what was seen of it before.
func (e *entry) stillIs(now *unix.Stat_t) error {
	was := &e.st
	if now.Ino != was.Ino || now.Dev != was.Dev || now.Size != was.Size || now.Mtim != was.Mtim || now.Ctim != was.Ctim {
		return fail(kimg.ErrBusy, e.path(), "changed while it was read")
	}
	return nil
}

// lookBelow finds what the layers below show of the entry's name.
func (t *tree) lookBelow(e *entry) (err error) {
	l := e.dir.lower
	if l == nil {
		l = e.dir.hidden
	}
	if _, e.below, err = l.Lookup(e.name, &e.belowSt); err != nil {
		return below(e.path(), err)
	}
	return nil
}

// isBelow reports whether the layers below show the very same file: a copy that overlay made and nobody changed. fd is
// the entry's file; it is at its beginning afterwards.
func (t *tree) isBelow(e *entry, fd int, scratch []byte) (bool, error) {
	l := e.dir.lower
	if l == nil {
		l = e.dir.hidden
	}
	if l == nil {
		return false, nil
	}
	at, found, err := l.Lookup(e.name, &e.belowSt)
	e.below = found
	if err != nil {
		return false, below(e.path(), err)
	}
	a, b := &e.st, &e.belowSt
	if !found || a.Nlink > 1 || a.Mode != b.Mode || a.Mtim != b.Mtim || a.Size != b.Size || a.Rdev != b.Rdev ||
		!t.ids.same(a.Uid, a.Gid, b.Uid, b.Gid) {
		return false, nil
	}
	if fd < 0 {
		attrs, err := atfs.XattrsAt(at, e.name, foreign)
		same := err == nil && e.attrs.same(attrs)
		if same && e.typ == unix.DT_LNK {
			var link string
			link, err = atfs.ReadLink(at, e.name)
			same = link == e.link
		}
		if err != nil {
			return false, below(e.path(), err)
		}
		return same, nil
	}
	low, err := atfs.OpenFile(at, e.name)
	if err != nil {
		return false, below(e.path(), err)
	}
	defer unix.Close(low)
	all, err := atfs.Xattrs(low, wanted)
	if err != nil {
		return false, below(e.path(), err)
	}
	var attrs []atfs.Xattr
	for _, x := range all {
		if !view.Own(x.Name) {
			attrs = append(attrs, x)
		} else if x.Name == t.prefix+"metacopy" {
			return false, nil // its content is elsewhere; the upper's is here
		}
	}
	if !e.attrs.same(attrs) {
		return false, nil
	}
	same, err := sameContent(fd, low, scratch)
	if err == nil && !same {
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	}
	var now unix.Stat_t
	if err == nil {
		err = retryStat(fd, &now)
	}
	if err != nil {
		return false, kimg.Wrap(kimg.Escape(e.path(), 256), err)
	}
	return same, e.stillIs(&now)
}

// sameContent compares two files of the same size from where they are.
func sameContent(a, b int, scratch []byte) (bool, error) {
	half := len(scratch) / 2
	for {
		n, err := atfs.Read(a, scratch[:half])
		if err != nil {
			return false, err
		}
		m, err := atfs.Read(b, scratch[half:2*half])
		if err != nil {
			return false, err
		}
		if n != m || !bytes.Equal(scratch[:n], scratch[half:half+m]) {
			return false, nil
		}
		if n < half {
			return true, nil
		}
	}
}
