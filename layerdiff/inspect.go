package layerdiff

import (
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// keptBack is why something of a file is not in the layer.
func keptBack(attr string) string {
	return "its attribute " + kimg.Quote(attr) + ", which another overlay would obey"
}

// inspect finds out what an entry that is no directory is and whether it differs from what is below. For a regular file
// that belongs into the layer it returns the content, open, at its beginning. scratch is for comparing contents.
func (t *tree) inspect(e *entry, scratch []byte) (fd int, err error) {
	if e.at < 0 {
		return -1, t.delete(e)
	}
	if e.typ == unix.DT_REG {
		return t.inspectFile(e, scratch)
	}
	path := e.path()
	if err := atfs.Lstat(e.at, e.name, &e.st); err != nil {
		return -1, reading(path, err)
	}
	if direntType(e.st.Mode) != e.typ {
		return -1, reading(path, unix.ENOENT)
	}
	if atfs.IsWhiteout(&e.st) {
		if t.prefix == "" {
			return -1, fail(kimg.ErrUnsupported, path, "a device 0:0, which overlay would read as a deletion")
		}
		return -1, t.delete(e)
	}
	if e.typ == unix.DT_SOCK {
		// It stays out, but what it replaced is gone all the same.
		e.reason = "a socket"
		err := t.delete(e)
		if e.kind == kindNone || e.belowSt.Mode&unix.S_IFMT == unix.S_IFSOCK {
			e.kind = kindLeftOut
		}
		return -1, err
	}
	e.kind = kindNode
	all, err := atfs.XattrsAt(e.at, e.name, wanted)
	if err == nil && e.typ == unix.DT_LNK {
		e.link, err = atfs.ReadLink(e.at, e.name)
	}
	var now unix.Stat_t
	if err == nil {
		err = atfs.Lstat(e.at, e.name, &now)
	}
	if err != nil {
		return -1, reading(path, err)
	}
	if e.linked() {
		now.Ctim = e.st.Ctim // staging another of its names as a hard link may just have changed it
	}
	if err := e.stillIs(&e.st, &now); err != nil {
		return -1, err
	}
	if _, err := t.judge(e, all); err != nil {
		return -1, err
	}
	same, err := t.isBelow(e, -1, scratch)
	if same {
		e.kind, e.reason = kindNone, ""
	}
	return -1, err
}

// delete makes the entry the deletion of what the base has under its name, or nothing.
func (t *tree) delete(e *entry) error {
	err := t.lookBelow(e)
	if e.kind = kindNone; e.below {
		e.kind = kindWhiteout
	}
	return err
}

func (t *tree) inspectFile(e *entry, scratch []byte) (int, error) {
	fd, err := atfs.OpenFile(e.at, e.name)
	if err != nil {
		return -1, reading(e.path(), err)
	}
	fd, err = t.inspectOpen(e, fd, scratch)
	if err == nil && e.kind == kindFile {
		return fd, nil
	}
	if fd >= 0 {
		closeRead(fd)
	}
	return -1, err
}

// inspectOpen inspects a file that is open, and leaves its content open, which may be that of another file.
func (t *tree) inspectOpen(e *entry, fd int, scratch []byte) (int, error) {
	if err := retryStat(fd, &e.st); err != nil {
		return fd, reading(e.path(), err)
	}
	if e.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fd, reading(e.path(), unix.ENOENT)
	}
	all, err := atfs.Xattrs(fd, wanted)
	if err != nil {
		return fd, reading(e.path(), err)
	}
	m, err := t.judge(e, all)
	if err != nil {
		return fd, err
	}
	if m.Whiteout && e.st.Size == 0 {
		return fd, t.delete(e)
	}
	if m.Metacopy {
		closeRead(fd)
		if fd, err = t.find(e, m); err != nil {
			return fd, err
		}
	}
	same, err := t.isBelow(e, fd, scratch)
	if same {
		e.reason = ""
	} else if err == nil {
		e.kind = kindFile
		if !e.below && e.st.Size == 0 && t.isMountTarget(e.dir, e.name, &e.st, &e.attrs) {
			e.kind, e.reason = kindLeftOut, mountTarget
		}
	}
	return fd, err
}

// find opens the content of a metacopy file.
func (t *tree) find(e *entry, m view.Marks) (fd int, err error) {
	e.data = &data{from: e.dir.from, above: e.at, marks: m}
	if e.at == e.dir.fd {
		e.data.above = -1
		if m.Redirect != "" && m.Redirect[0] == '/' {
			e.data.from = t.lowers
		}
	}
	if fd, err = e.open(); err != nil {
		return -1, err
	}
	if err := retryStat(fd, &e.data.st); err != nil {
		return fd, below(e.path(), err)
	}
	if e.data.st.Size != e.st.Size {
		return fd, fail(kimg.ErrDamaged, e.path(), "%d bytes long, but its content in a lower layer has %d", e.st.Size, e.data.st.Size)
	}
	return fd, nil
}

// judge fills in owners and attributes, refuses what no layer can carry and returns overlay's marks.
func (t *tree) judge(e *entry, all []atfs.Xattr) (m view.Marks, err error) {
	if len(all) > 0 {
		if e.attrs, err = t.attributes(e.path, all); err != nil {
			return m, err
		}
		if m, err = view.ReadMarks(t.prefix, e.attrs.own); err != nil {
			return m, kimg.Wrap(kimg.Escape(e.path(), 256), err)
		}
		e.marked = m != view.Marks{}
		if m.Escaped != "" {
			e.reason = keptBack(m.Escaped)
		}
	}
	e.uid, e.gid, err = t.owner(e.path, e.st.Uid, e.st.Gid)
	return m, err
}

// stillIs compares a file with what was seen of it before.
func (e *entry) stillIs(was, now *unix.Stat_t) error {
	if now.Ino != was.Ino || now.Dev != was.Dev || now.Size != was.Size || now.Mtim != was.Mtim || now.Ctim != was.Ctim {
		return fail(kimg.ErrBusy, e.path(), "%w", errTorn)
	}
	return nil
}
