package layerdiff

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// lookBelow finds what the base shows of the entry's name.
func (t *tree) lookBelow(e *entry) (err error) {
	_, e.below, err = e.dir.base.Lookup(e.name, &e.belowSt)
	return below(e.path(), err)
}

// isBelow reports whether the base shows the very same file: a copy that overlay made and nobody changed. fd is the
// entry's content; it is at its beginning afterwards.
func (t *tree) isBelow(e *entry, fd int, scratch []byte) (bool, error) {
	if e.dir.base == nil {
		return false, nil
	}
	at, found, err := e.dir.base.Lookup(e.name, &e.belowSt)
	e.below = found
	if err != nil {
		return false, below(e.path(), err)
	}
	a, b := &e.st, &e.belowSt
	if !found || a.Mode != b.Mode || a.Mtim != b.Mtim || a.Size != b.Size || a.Rdev != b.Rdev ||
		!t.ids.same(a.Uid, a.Gid, b.Uid, b.Gid) {
		return false, nil
	}
	if a.Nlink > 1 {
		if same, err := t.sameLinks(fileIDOf(a)); !same || err != nil {
			return false, err
		}
	}
	if fd >= 0 {
		return t.isFileBelow(e, fd, at, scratch)
	}
	attrs, err := atfs.XattrsAt(at, e.name, foreign)
	same := err == nil && e.attrs.same(attrs)
	if same && e.typ == unix.DT_LNK {
		var link string
		link, err = atfs.ReadLink(at, e.name)
		same = link == e.link
	}
	return same && err == nil, below(e.path(), err)
}

// isFileBelow compares attributes and content of a regular file with those of a file of the base.
func (t *tree) isFileBelow(e *entry, fd, at int, scratch []byte) (bool, error) {
	low, err := atfs.OpenFile(at, e.name)
	if err != nil {
		return false, below(e.path(), err)
	}
	defer func() { closeRead(low) }()
	all, err := atfs.Xattrs(low, wanted)
	if err != nil {
		return false, below(e.path(), err)
	}
	var attrs, own []atfs.Xattr
	for _, x := range all {
		if view.Own(x.Name) {
			own = append(own, x)
		} else {
			attrs = append(attrs, x)
		}
	}
	if !e.attrs.same(attrs) {
		return false, nil
	}
	var lowSt unix.Stat_t
	m, err := view.ReadMarks(t.prefix, own)
	if err == nil && m.Metacopy {
		var content int
		if content, err = e.dir.base.Content(at, e.name, m); err == nil {
			closeRead(low)
			low = content
		}
	}
	if err == nil {
		err = retryStat(low, &lowSt)
	}
	if err != nil {
		return false, below(e.path(), err)
	}
	if fileIDOf(e.content()) == fileIDOf(&lowSt) {
		return true, nil
	}
	if err := e.rested(fd); err != nil {
		return false, err
	}
	same, err := sameContent(fd, low, scratch, t.cancelled)
	if err == nil && !same {
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	}
	if err != nil {
		return false, kimg.Wrap(kimg.Escape(e.path(), 256), err)
	}
	return same, e.recheck(fd)
}

// sameContent compares two files of the same size from where they are, unless that is cancelled.
func sameContent(a, b int, scratch []byte, cancelled func() error) (bool, error) {
	half := len(scratch) / 2
	for {
		if err := cancelled(); err != nil {
			return false, err
		}
		n, err := atfs.Read(a, scratch[:half], -1)
		if err != nil {
			return false, err
		}
		m, err := atfs.Read(b, scratch[half:2*half], -1)
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
