//go:build linux

package view

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// Dir is one directory of the merged lower layers: the directories it is merged from, top first, all open. Its methods
// may be called from several goroutines, Names and Close excepted. The nil Dir is a directory that no layer has.
type Dir struct {
	prefix string
	fds    []int
}

// OpenLowers opens the root of the merged lower layers; nil when there are none. The caller closes it.
func (s Stack) OpenLowers() (*Dir, error) {
	if len(s.Lowers) == 0 {
		return nil, nil
	}
	d := &Dir{prefix: s.Prefix()}
	for _, path := range s.Lowers {
		fd, err := atfs.OpenRoot(path)
		if err != nil {
			d.Close()
			return nil, kimg.Wrap(path, err)
		}
		d.fds = append(d.fds, fd)
	}
	return d, nil
}

// Close closes the directories.
func (d *Dir) Close() {
	if d == nil {
		return
	}
	for _, fd := range d.fds {
		_ = unix.Close(fd) // opened for reading: nothing to lose
	}
	d.fds = nil
}

// Len returns how many layers have the directory, which is how many file descriptors it holds.
func (d *Dir) Len() int {
	if d == nil {
		return 0
	}
	return len(d.fds)
}

// Top returns the file descriptor of the topmost of the merged directories: the one whose metadata the view shows.
func (d *Dir) Top() int { return d.fds[0] }

// Child opens a directory of the directory; nil when the view shows none of that name. Errors do not name the path.
func (d *Dir) Child(name string) (*Dir, error) {
	if d == nil {
		return nil, nil
	}
	var c *Dir
	for _, fd := range d.fds {
		sub, err := atfs.OpenDir(fd, name)
		if err == unix.ENOENT {
			continue
		}
		if err == unix.ENOTDIR || err == unix.ELOOP {
			break // a whiteout or a file: it hides what is further down
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		if c == nil {
			c = &Dir{prefix: d.prefix}
		}
		c.fds = append(c.fds, sub)
		attrs, err := atfs.Xattrs(sub, Own)
		var opaque bool
		if err == nil {
			opaque, err = Marks(d.prefix, attrs, true)
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		if opaque {
			break
		}
	}
	return c, nil
}

// Lookup describes a name of the directory and returns the file descriptor of the directory that has it, or false when
// the view shows no such name.
func (d *Dir) Lookup(name string, st *unix.Stat_t) (at int, found bool, err error) {
	if d == nil {
		return -1, false, nil
	}
	for _, fd := range d.fds {
		err := atfs.Lstat(fd, name, st)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return -1, false, err
		}
		return fd, !atfs.IsWhiteout(st), nil
	}
	return -1, false, nil
}

// Names returns the names that the view shows in the directory, sorted by bytes.
func (d *Dir) Names() ([]string, error) {
	if d == nil {
		return nil, nil
	}
	seen := map[string]bool{}
	var out []string
	for _, fd := range d.fds {
		names, err := atfs.ReadDir(fd)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if seen[n.Name] {
				continue
			}
			seen[n.Name] = true
			if n.Type == unix.DT_CHR || n.Type == unix.DT_UNKNOWN {
				var st unix.Stat_t
				if err := atfs.Lstat(fd, n.Name, &st); err != nil {
					return nil, err
				}
				if atfs.IsWhiteout(&st) {
					continue
				}
			}
			out = append(out, n.Name)
		}
	}
	slices.SortFunc(out, strings.Compare)
	return out, nil
}
