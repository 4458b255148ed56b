package layerdiff

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// links tells whether the names of one file are names of one file in the base too. Finding out takes a walk of its own,
// because the answer for the first name depends on the last. It is only asked about files that are otherwise unchanged.
type links struct {
	once sync.Once
	same map[fileID]bool
	err  error
}

// sameLinks reports whether all names under which the tree shows a file belong to one file of the base. A file with one
// name may have had others there: overlay breaks links when it copies a file up.
func (t *tree) sameLinks(id fileID) (bool, error) {
	t.links.once.Do(func() {
		f := &linkFinder{
			tree:   newTree(t.stack, Options{UIDs: t.uids, GIDs: t.gids, SkipUnreadable: t.lenient}, t.cancelled),
			groups: map[fileID]*linkGroup{},
		}
		root, err := f.tree.root()
		if err == nil {
			err = f.tree.walk(root, f)
			f.tree.close(root)
		}
		t.links.same, t.links.err = map[fileID]bool{}, err
		for id, g := range f.groups {
			t.links.same[id] = g.names == 1 || g.same
		}
	})
	same, found := t.links.same[id]
	return same || !found, t.links.err
}

// linkFinder is the visitor that looks for files with several names.
type linkFinder struct {
	tree   *tree
	groups map[fileID]*linkGroup
}

type linkGroup struct {
	names int
	base  fileID // the base's file of the first name
	same  bool
}

func (f *linkFinder) visit(d *dir, n view.Name) error {
	var st unix.Stat_t
	if n.At < 0 {
		return nil
	}
	if err := atfs.Lstat(n.At, n.Name, &st); err != nil {
		return reading(d.show(n.Name), err)
	}
	if st.Nlink < 2 {
		return nil
	}
	e := entry{dir: d, name: n.Name}
	if err := f.tree.lookBelow(&e); err != nil {
		return err
	}
	id, base := fileIDOf(&st), fileIDOf(&e.belowSt)
	g, found := f.groups[id]
	if !found {
		g = &linkGroup{base: base, same: true}
		f.groups[id] = g
	}
	g.names++
	g.same = g.same && e.below && g.base == base
	return nil
}

func (f *linkFinder) enter(*dir) error                   { return nil }
func (f *linkFinder) leftOut(*dir, string, string) error { return nil }
func (f *linkFinder) leave(d *dir) error                 { f.tree.close(d); return nil }
