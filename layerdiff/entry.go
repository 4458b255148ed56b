package layerdiff

import (
	"archive/tar"

	"golang.org/x/sys/unix"

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

// entry is one name of the tree on its way into the layer.
type entry struct {
	dir  *dir
	name string
	typ  uint8 // unix.DT_*
	at   int   // file descriptor of the directory that has it: the upper's or one below; negative when only the base does
	sub  *dir  // the directory itself, for a directory

	kind   kind
	st     unix.Stat_t
	uid    uint32 // as the container sees them
	gid    uint32
	attrs  attrs
	data   *data  // where the content is, when that is not the file itself
	marked bool   // it has marks of overlay that no layer may have
	link   string // target of a symbolic link
	reason string // why it is left out, if it is

	below   bool        // the base shows something of this name
	belowSt unix.Stat_t // what that is

	// Where in its batch's buffer the tar member is: header, content, end with padding. head < 0 when it is not there.
	head, body, end int
	crc             uint64
}

// data is the content of a metacopy file: overlay copied its metadata up and left its content below.
type data struct {
	from  *view.Dir
	above int // as Content of view.Dir takes it
	marks view.Marks
	st    unix.Stat_t
}

// content describes the file that has the content.
func (e *entry) content() *unix.Stat_t {
	if e.data != nil {
		return &e.data.st
	}
	return &e.st
}

// open opens the content.
func (e *entry) open() (fd int, err error) {
	if e.data != nil {
		fd, err = e.data.from.Content(e.data.above, e.name, e.data.marks)
		return fd, below(e.path(), err)
	}
	fd, err = atfs.OpenFile(e.at, e.name)
	return fd, reading(e.path(), err)
}

// path returns the path of the entry for people.
func (e *entry) path() string { return e.dir.show(e.name) }

// linked reports whether a file has other names, so that its place in the layer depends on which comes first.
func (e *entry) linked() bool { return e.kind != kindDir && e.st.Nlink > 1 }

// header returns the tar header of the entry as a file of its own.
func (e *entry) header() header {
	h := header{
		dir: e.dir.path, base: e.name, mode: e.st.Mode & 0o7777, uid: e.uid, gid: e.gid, mtime: int64(e.dir.time(e.st.Mtim).Sec),
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
		mtime: int64(d.time(d.st.Mtim).Sec), xattrs: d.attrs.layer,
	}
}
