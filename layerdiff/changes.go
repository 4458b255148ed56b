package layerdiff

import (
	"context"
	"errors"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff/view"
)

// Changes lists what differs from the base, in the order of the walk: what [Write] would put into the layer. A directory
// is listed as changed when its own metadata is, or when something in it is; the deletion of a directory stands for
// everything in it. Contents are read only to tell an unmodified copy of a lower file from a changed one. The sequence
// ends with its first error.
func Changes(ctx context.Context, stack view.Stack, o Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		l := &lister{ctx: ctx, yield: yield, scratch: make([]byte, 128<<10), links: map[fileID]string{}}
		l.tree = newTree(stack, o, l.cancelled)
		root, err := l.tree.root()
		if err == nil {
			err = l.tree.walk(root, l)
			l.tree.close(root)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Change{}, err)
		}
	}
}

// errStopped ends a walk whose caller has seen enough.
var errStopped = errors.New("stopped")

// lister is the visitor behind Changes.
type lister struct {
	ctx     context.Context
	tree    *tree
	yield   func(Change, error) bool
	scratch []byte
	links   map[fileID]string // first names, absolute
}

func (l *lister) cancelled() error {
	if err := context.Cause(l.ctx); err != nil {
		return kimg.Wrap("", err)
	}
	return nil
}

func (l *lister) give(c Change) error {
	if !l.yield(c, nil) {
		return errStopped
	}
	return nil
}

// report lists a change in d, after the directories above that nothing was listed for yet.
func (l *lister) report(d *dir, c Change) error {
	if err := l.parents(d); err != nil {
		return err
	}
	return l.give(c)
}

func (l *lister) parents(d *dir) error {
	if d.written {
		return nil
	}
	if err := l.parents(d.parent); err != nil {
		return err
	}
	d.written = true
	return l.give(d.change(Changed))
}

// change describes a directory.
func (d *dir) change(kind ChangeKind) Change {
	return Change{
		Path: d.parent.show(d.name), Kind: kind, Type: TypeDir, Mode: d.st.Mode & 0o7777, UID: d.uid, GID: d.gid,
	}
}

func (l *lister) enter(d *dir) error {
	if d.same {
		return nil
	}
	e := entry{dir: d.parent, name: d.name}
	if err := l.tree.lookBelow(&e); err != nil {
		return err
	}
	kind := Changed
	if !e.below {
		kind = Added
	}
	if err := l.parents(d.parent); err != nil {
		return err
	}
	d.written = true
	return l.give(d.change(kind))
}

func (l *lister) leave(d *dir) error {
	l.tree.close(d)
	return nil
}

// deletion describes what an entry's name stands for below.
func (l *lister) deletion(e *entry) Change {
	st := &e.belowSt
	c := Change{Path: e.path(), Kind: Deleted, Type: fileType(direntType(st.Mode)), Mode: st.Mode & 0o7777}
	// The lower layer may be stored with either kind of id; one without a place in the map is already the container's.
	c.UID, c.GID = st.Uid, st.Gid
	if uid, gid, err := l.tree.owner(e.path, st.Uid, st.Gid); err == nil {
		c.UID, c.GID = uid, gid
	}
	if c.Type == TypeFile {
		c.Size = st.Size
	}
	return c
}

func (l *lister) leftOut(*dir, string, string) error { return nil }

func (l *lister) visit(d *dir, n view.Name) error {
	e := entry{dir: d, name: n.Name, typ: n.Type, at: n.At}
	fd, err := l.tree.inspect(&e, l.scratch)
	if fd >= 0 {
		closeRead(fd)
	}
	if l.tree.lenient && errors.Is(err, errUnreadable) {
		return nil
	}
	if err != nil {
		return err
	}
	switch e.kind {
	case kindWhiteout:
		return l.report(d, l.deletion(&e))
	case kindNone, kindLeftOut:
		return nil
	}
	c := Change{
		Path: e.path(), Kind: Added, Type: fileType(e.typ), Mode: e.st.Mode & 0o7777, UID: e.uid, GID: e.gid, Link: e.link,
	}
	if e.below {
		c.Kind = Changed
	}
	if e.kind == kindFile {
		c.Size = e.st.Size
	}
	if e.linked() {
		id := fileIDOf(&e.st)
		if first, ok := l.links[id]; ok {
			c.Type, c.Link, c.Size = TypeLink, first, 0
		} else {
			l.links[id] = c.Path
		}
	}
	return l.report(d, c)
}

func fileType(typ uint8) FileType {
	switch typ {
	case unix.DT_DIR:
		return TypeDir
	case unix.DT_LNK:
		return TypeSymlink
	case unix.DT_CHR:
		return TypeChar
	case unix.DT_BLK:
		return TypeBlock
	case unix.DT_FIFO:
		return TypeFifo
	}
	return TypeFile
}
