package layerdiff

import (
	"context"
	"errors"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// Changes lists what differs from the layers below, in the order of the walk: what [Write] would put into the layer. A
// directory is listed as changed when its own metadata is, or when something in it is. An opaque directory, which hides
// what the lower layers have in it, is listed as the deletion of each name that is not there again, and the addition
// or change of the others; the deletion of a directory stands for everything in it. Contents are read only to tell an
// unmodified copy of a lower file from a changed one. The sequence ends with its first error.
func Changes(ctx context.Context, stack view.Stack, o Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		l := &lister{
			ctx: ctx, yield: yield, o: o, scratch: make([]byte, 128<<10), links: map[fileID]string{},
			tree: tree{ids: ids{o.UIDs, o.GIDs}, prefix: stack.Prefix(), keepHidden: true},
		}
		root, err := l.tree.root(stack)
		if err == nil {
			l.push(nil)
			err = l.tree.walk(root, l, o.SkipUnreadable)
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
	tree    tree
	o       Options
	yield   func(Change, error) bool
	scratch []byte
	links   map[fileID]string // first names, absolute
	stack   [][]string        // for each directory the walk is in: hidden names that have not come up yet
}

func (l *lister) cancelled() error {
	if err := context.Cause(l.ctx); err != nil {
		return kimg.Wrap("", err)
	}
	return nil
}

func (l *lister) push(names []string) { l.stack = append(l.stack, names) }

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
	hidden := d.hidden
	if err := l.deleteBefore(d.parent, d.name); err != nil {
		return err
	}
	names, err := hidden.Names()
	if err != nil {
		return below(d.show(""), err)
	}
	l.push(names)
	if d.same {
		return nil
	}
	kind := Changed
	if d.lower == nil && hidden == nil {
		e := entry{dir: d.parent, name: d.name}
		if err := l.tree.lookBelow(&e); err != nil {
			return err
		}
		if !e.below {
			kind = Added
		}
	} else if hidden != nil {
		same, err := l.tree.sameDir(d, hidden.Top())
		if err != nil || same {
			d.same = same
			return below(d.show(""), err)
		}
	}
	if err := l.parents(d.parent); err != nil {
		return err
	}
	d.written = true
	return l.give(d.change(kind))
}

func (l *lister) leave(d *dir) error {
	err := l.deleteBefore(d, "")
	l.stack = l.stack[:len(l.stack)-1]
	l.tree.close(d)
	return err
}

// deleteBefore lists the hidden names of an opaque directory that sort before a name the walk has come to ("" for the
// end), and takes that name off the list.
func (l *lister) deleteBefore(d *dir, name string) error {
	names := l.stack[len(l.stack)-1]
	if len(names) == 0 {
		return nil
	}
	for len(names) > 0 && (name == "" || names[0] < name) {
		e := entry{dir: d, name: names[0]}
		names = names[1:]
		l.stack[len(l.stack)-1] = names
		if err := l.tree.lookBelow(&e); err != nil {
			return err
		}
		if err := l.report(d, l.deletion(&e)); err != nil {
			return err
		}
	}
	if len(names) > 0 && names[0] == name {
		l.stack[len(l.stack)-1] = names[1:]
	}
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

// leftOut lists nothing, but what an opaque directory hides under the name is deleted.
func (l *lister) leftOut(d *dir, name, _ string) error { return l.deleteBefore(d, name+"\x00") }

func (l *lister) visit(d *dir, name string, typ uint8) error {
	if err := l.deleteBefore(d, name); err != nil {
		return err
	}
	e := entry{dir: d, name: name, typ: typ}
	fd, err := l.tree.inspect(&e, l.scratch)
	if fd >= 0 {
		closeRead(fd)
	}
	if l.o.SkipUnreadable && errors.Is(err, errUnreadable) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case e.below && (typ == unix.DT_SOCK || atfs.IsWhiteout(&e.st)):
		return l.report(d, l.deletion(&e))
	case e.kind == kindNone || e.kind == kindLeftOut:
		return nil
	}
	c := Change{
		Path: e.path(), Kind: Added, Type: fileType(typ), Mode: e.st.Mode & 0o7777, UID: e.uid, GID: e.gid, Link: e.link,
	}
	if e.below {
		c.Kind = Changed
	}
	if e.kind == kindFile {
		c.Size = e.st.Size
	}
	if e.linked() {
		id := fileID{uint64(e.st.Dev), e.st.Ino}
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
