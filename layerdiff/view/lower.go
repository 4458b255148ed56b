//go:build linux

package view

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// Dir is one directory of the merged layers: the directories it is merged from, top first, all open. Its methods may be
// called from several goroutines, Names and Close excepted. The nil Dir is a directory that no layer has.
type Dir struct {
	prefix string
	root   *Dir // of the same layers; it must stay open
	parts  []part
	ids    []fileID // of the parts; only of a root

	asked atomic.Int32 // look-ups so far
	index sync.Once
	known []map[string]bool // the names in each part, nil where they are too many; only after index
}

// part is the directory in one layer.
type part struct {
	fd, layer int
	whiteouts bool // marked files in it stand for deletions
}

type fileID struct{ dev, ino uint64 }

// Open opens the root of the merged layers, top first; nil when there are none. prefix is that of their marks, empty when
// nothing in them is one. The caller closes it, after every directory opened through it.
func Open(prefix string, layers []string) (*Dir, error) {
	if len(layers) == 0 {
		return nil, nil
	}
	d := &Dir{prefix: prefix}
	d.root = d
	for i, path := range layers {
		fd, err := atfs.OpenRoot(path)
		if err == nil {
			_, err = d.add(fd, i)
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err != nil {
			d.Close()
			return nil, kimg.Wrap(path, err)
		}
		d.ids = append(d.ids, fileID{uint64(st.Dev), st.Ino})
	}
	return d, nil
}

// add takes over the directory of one layer and returns its marks.
func (d *Dir) add(fd, layer int) (m Marks, err error) {
	d.parts = append(d.parts, part{fd: fd, layer: layer})
	if d.prefix == "" {
		return m, nil
	}
	attrs, err := atfs.Xattrs(fd, Own)
	if err == nil {
		m, err = ReadMarks(d.prefix, attrs)
	}
	d.parts[len(d.parts)-1].whiteouts = m.Whiteouts
	return m, err
}

// Close closes the directories.
func (d *Dir) Close() {
	if d == nil {
		return
	}
	for _, p := range d.parts {
		_ = unix.Close(p.fd) // opened for reading: nothing to lose
	}
	d.parts = nil
}

// Len returns how many layers have the directory, which is how many file descriptors it holds.
func (d *Dir) Len() int {
	if d == nil {
		return 0
	}
	return len(d.parts)
}

// Top returns the file descriptor of the topmost of the merged directories: the one whose metadata the view shows.
func (d *Dir) Top() int { return d.parts[0].fd }

// Same reports whether two directories, perhaps of different stacks, are merged from the same directories of the same
// layers, so that everything in them is the same.
func (d *Dir) Same(o *Dir) (bool, error) {
	if d == o || d.Len() != o.Len() || d.Len() == 0 {
		return d == o, nil
	}
	above, oAbove := d.parts[0].layer, o.parts[0].layer
	if !slices.Equal(d.root.ids[above:], o.root.ids[oAbove:]) {
		return false, nil
	}
	for i, p := range d.parts {
		var a, b unix.Stat_t
		if p.layer-above != o.parts[i].layer-oAbove {
			return false, nil
		}
		if err := unix.Fstat(p.fd, &a); err != nil {
			return false, err
		}
		if err := unix.Fstat(o.parts[i].fd, &b); err != nil {
			return false, err
		}
		if a.Dev != b.Dev || a.Ino != b.Ino {
			return false, nil
		}
	}
	return true, nil
}

// Lookup describes a name of the directory and returns the file descriptor of the directory that has it, or false when
// the view shows no such name. Of a metacopy file the content is elsewhere: see [Dir.Content].
func (d *Dir) Lookup(name string, st *unix.Stat_t) (at int, found bool, err error) {
	if d == nil {
		return -1, false, nil
	}
	known := d.names()
	for i, p := range d.parts {
		if known != nil && known[i] != nil && !known[i][name] {
			continue
		}
		err := atfs.Lstat(p.fd, name, st)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return -1, false, err
		}
		gone, err := d.whiteout(p.fd, name, st)
		return p.fd, !gone && err == nil, err
	}
	return -1, false, nil
}

// A directory that many layers have is read once instead of asked in each layer for every name. Layers do not change.
const (
	manyLayers  = 4
	manyLookups = 4
	fewNames    = 8 << 10 // bytes of a directory's list; a longer one is asked
)

// names returns the names in each part once that is worth its while, nil before.
func (d *Dir) names() []map[string]bool {
	if len(d.parts) < manyLayers || d.asked.Add(1) <= manyLookups {
		return nil
	}
	d.index.Do(func() {
		known, buf := make([]map[string]bool, len(d.parts)), make([]byte, fewNames)
		for i, p := range d.parts {
			known[i] = fewIn(p.fd, buf)
		}
		d.known = known
	})
	return d.known
}

// fewIn returns the names in a directory, nil when they are more than buf holds or cannot be read; then they are asked one by one.
func fewIn(dir int, buf []byte) map[string]bool {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // an offset of its own
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil
	}
	_, _, list := unix.ParseDirent(buf[:n], -1, nil)
	if more, err := unix.Getdents(fd, buf); err != nil || more > 0 {
		return nil
	}
	names := make(map[string]bool, len(list))
	for _, name := range list {
		names[name] = true
	}
	return names
}

// whiteout reports whether a file stands for a deletion, in either form.
func (d *Dir) whiteout(at int, name string, st *unix.Stat_t) (bool, error) {
	if d.prefix == "" {
		return false, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
		return atfs.IsWhiteout(st), nil
	}
	attrs, err := atfs.XattrsAt(at, name, func(name string) bool { return name == d.prefix+"whiteout" })
	return len(attrs) > 0, err
}

// Name is a name in a directory and the file descriptor of the topmost directory that has it.
type Name struct {
	Name string
	Type uint8 // unix.DT_*
	At   int
}

// Names returns the names that the view shows in the directory, sorted by bytes.
func (d *Dir) Names() ([]Name, error) {
	if d == nil {
		return nil, nil
	}
	seen := map[string]bool{}
	var out []Name
	for _, p := range d.parts {
		names, err := atfs.ReadDir(p.fd)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if seen[n.Name] {
				continue
			}
			seen[n.Name] = true
			if n.Type == unix.DT_CHR || n.Type == unix.DT_UNKNOWN || p.whiteouts && n.Type == unix.DT_REG {
				var st unix.Stat_t
				err := atfs.Lstat(p.fd, n.Name, &st)
				var gone bool
				if err == nil {
					gone, err = d.whiteout(p.fd, n.Name, &st)
				}
				if err != nil {
					return nil, err
				}
				if gone {
					continue
				}
				n.Type = uint8(st.Mode & unix.S_IFMT >> 12)
			}
			out = append(out, Name{n.Name, n.Type, p.fd})
		}
	}
	slices.SortFunc(out, func(a, b Name) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
