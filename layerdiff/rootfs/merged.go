package rootfs

import (
	"maps"
	"slices"
	"strings"

	"github.com/kimg/kimg"
)

// merged is the tree that the layers so far show. Names and files are apart, so that a file can have several names.
type merged struct {
	root  *node
	layer int32 // the one being applied; the first is 1
	names int
	limit int    // of names
	holey int64  // bytes in files with holes
	spool *spool // keeps the content; nil: it is only digested
}

// name is one name in a directory.
type name struct {
	*node
	layer int32 // that has a member of this name, or implies it by one below
}

// node is one file. Of a directory everything is kept, because layers above can change its part in the digest; of
// anything else the digest.
type node struct {
	dir    *directory
	sum    sum
	kept   *file // instead of sum, when content is kept
	layer  int32 // in which the file came to be
	linked bool  // it has had several names
}

type directory struct {
	file
	names map[string]name
}

func newMerged(limit int) *merged { return &merged{root: newDir(file{}, 0), limit: limit} }

func newDir(f file, layer int32) *node {
	return &node{dir: &directory{file: f, names: map[string]name{}}, layer: layer}
}

// implied is a directory that no layer says anything about.
func implied() file { return file{kind: 'd', mode: 0o755, implied: true} }

// put gives a file a name in the layer being applied. What had the name before goes; a directory keeps its content
// under another.
func (m *merged) put(path []string, n *node) error {
	parent, err := m.make(path[:len(path)-1])
	if err != nil {
		return err
	}
	base := path[len(path)-1]
	old, ok := parent.names[base]
	if ok && old.dir != nil && n.dir != nil {
		old.dir.file, old.layer = n.dir.file, m.layer
		parent.names[base] = old
		return nil
	}
	m.remove(parent, base)
	return m.set(parent, base, n)
}

func (m *merged) set(parent *directory, base string, n *node) error {
	if m.names++; m.names > m.limit {
		return kimg.Errorf(kimg.ErrLimit, "layers", "a tree of more than %d names", m.limit)
	}
	parent.names[strings.Clone(base)] = name{n, m.layer} // base is part of a longer string
	return nil
}

// make finds a directory that members of the layer lie in, and implies what is not there.
func (m *merged) make(path []string) (*directory, error) {
	at := m.root.dir
	for i, base := range path {
		n, ok := at.names[base]
		switch {
		case ok && n.layer == m.layer && n.dir == nil:
			return nil, kimg.Errorf(kimg.ErrUnsafe, show(path[:i+1]), "a member lies below it, and it is no directory")
		case !ok || n.dir == nil:
			m.remove(at, base)
			if err := m.set(at, base, newDir(implied(), m.layer)); err != nil {
				return nil, err
			}
		case n.layer != m.layer:
			n.layer, n.dir.implied = m.layer, true
			at.names[base] = n
		}
		at = at.names[base].dir
	}
	return at, nil
}

// hide takes a name, or with an empty one all names of the directory, out of the lower layers. What had to be unpacked for
// that changes the times of the directories above.
func (m *merged) hide(path []string, base string) {
	at := m.root.dir
	for _, p := range path {
		n, ok := at.names[p]
		if !ok || n.dir == nil {
			return
		}
		if n.layer != m.layer {
			n.dir.implied = true
		}
		at = n.dir
	}
	if base == "" {
		m.purge(at)
	} else if n, ok := at.names[base]; ok {
		m.hideName(at, base, n)
	}
}

func (m *merged) hideName(at *directory, base string, n name) {
	if n.layer != m.layer {
		m.remove(at, base)
		return
	}
	if n.dir == nil {
		return
	}
	if n.dir.implied { // whatever it kept was the lower layers'
		n.dir.file = implied()
	}
	m.purge(n.dir)
}

// purge removes the names of lower layers below a directory of the layer being applied.
func (m *merged) purge(at *directory) {
	for base, n := range at.names {
		m.hideName(at, base, n)
	}
}

// remove removes a name and what is below it.
func (m *merged) remove(at *directory, base string) {
	n, ok := at.names[base]
	if !ok {
		return
	}
	if n.dir != nil {
		for below := range n.dir.names {
			m.remove(n.dir, below)
		}
	}
	delete(at.names, base)
	m.names--
}

// link gives an existing file another name.
func (m *merged) link(path, target []string) error {
	refuse := func(why string) error {
		return kimg.Errorf(kimg.ErrInvalid, show(path), "a hard link to %s, %s", kimg.Quote(show(target)), why)
	}
	if len(target) >= len(path) && slices.Equal(target[:len(path)], path) {
		return refuse("which it replaces")
	}
	at := m.root.dir
	for _, p := range target[:max(len(target)-1, 0)] {
		n, ok := at.names[p]
		if !ok || n.dir == nil {
			return refuse("which is not there")
		}
		at = n.dir
	}
	if len(target) == 0 {
		return refuse("the root")
	}
	base := target[len(target)-1]
	n, ok := at.names[base]
	switch {
	case !ok:
		return refuse("which is not there")
	case n.dir != nil:
		return refuse("a directory")
	case n.node.layer != m.layer: // copied up
		n.node = &node{sum: n.sum, kept: n.kept, layer: m.layer}
		at.names[base] = n
	}
	n.linked = true
	return m.put(path, n.node)
}

// walk visits the tree in its order; first is the earlier name of the same file, if there is one.
func (m *merged) walk(visit func(path string, n *node, first string) error) error {
	first := map[*node]string{}
	var walk func(prefix string, at *directory) error
	walk = func(prefix string, at *directory) error {
		for _, base := range slices.Sorted(maps.Keys(at.names)) {
			n, path := at.names[base].node, prefix+base
			if err := visit(path, n, first[n]); err != nil {
				return err
			}
			if n.dir != nil {
				if err := walk(path+"/", n.dir); err != nil {
					return err
				}
			} else if n.linked && first[n] == "" {
				first[n] = path
			}
		}
		return nil
	}
	return walk("", m.root.dir)
}

// record takes the digest of the tree.
func (m *merged) record(r *recorder) (impliedDirs []string) {
	_ = m.walk(func(path string, n *node, first string) error { // fails when we do
		s := n.sum
		if n.dir != nil {
			if s = n.dir.sum(); n.dir.implied {
				impliedDirs = append(impliedDirs, path)
			}
		}
		r.add(path, s, first)
		return nil
	})
	return impliedDirs
}

// show is a path for people.
func show(path []string) string { return kimg.Escape("/"+strings.Join(path, "/"), 255) }
