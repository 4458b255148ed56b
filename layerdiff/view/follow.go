//go:build linux

package view

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// descend follows a name down the layers, from part i of the directory on, as the kernel's look-up does. The name may
// also be a path from the root of the layers. look is told in which directory the name, or what redirects made of it, may
// be in one layer; it returns the redirect of what is there, and whether that hides everything below.
func (d *Dir) descend(i int, name string, look func(at, layer int, name string) (redirect string, hides bool, err error)) error {
	parts := d.parts
	if name[0] == '/' {
		parts = d.root.parts
	}
	for ; i < len(parts); i++ {
		p := parts[i]
		at, head, last, stop := p.fd, "", name, false
		if name[0] == '/' {
			var err error
			if at, head, last, stop, err = d.into(p.fd, name); err != nil {
				return err
			}
		}
		var redirect string
		if at >= 0 {
			var hides bool
			var err error
			redirect, hides, err = look(at, p.layer, last)
			if at != p.fd {
				_ = unix.Close(at) // opened for reading: nothing to lose
			}
			if err != nil {
				return err
			}
			stop = stop || hides
		}
		if redirect != "" {
			last = redirect
		}
		switch {
		case redirect != "" && redirect[0] == '/': // it leads out of whatever hides this place
			name, stop = redirect, false
		case name[0] == '/':
			name = head + "/" + last
		default:
			name = last
		}
		if stop {
			return nil
		}
		if name[0] == '/' && len(parts) > 0 && &parts[0] != &d.root.parts[0] {
			parts, i = d.root.parts, p.layer
		}
	}
	return nil
}

// into walks a path of one layer, from its root to the directory that has the last component. In the layers below the
// path to that directory is head. A negative at says that there is none here, and last is the rest of the path; hides says
// that a directory or a file on the way hides the layers below. The caller closes at unless it is root.
func (d *Dir) into(root int, path string) (at int, head, last string, hides bool, err error) {
	at = root
	for last = path[1:]; ; {
		name, rest, more := strings.Cut(last, "/")
		if !more {
			return at, head, last, hides, nil
		}
		sub, err := atfs.OpenDir(at, name)
		if at != root {
			_ = unix.Close(at)
		}
		if err != nil {
			absent, notDir := missing(err)
			if absent || notDir {
				err = nil
			}
			return -1, head, last, hides || notDir, err
		}
		at, last = sub, rest
		attrs, err := atfs.Xattrs(sub, Own)
		var m Marks
		if err == nil {
			m, err = ReadMarks(d.prefix, attrs)
		}
		switch {
		case err != nil:
			_ = unix.Close(sub)
			return -1, "", "", false, err
		case m.Opaque:
			head, hides = head+"/"+name, true
		case m.Redirect == "":
			head += "/" + name
		case m.Redirect[0] == '/':
			head, hides = m.Redirect, false
		default:
			head += "/" + m.Redirect
		}
	}
}

// missing tells why a directory could not be opened: nothing there, or something there that is none.
func missing(err error) (absent, notDir bool) {
	return err == unix.ENOENT || err == unix.ENAMETOOLONG, err == unix.ENOTDIR || err == unix.ELOOP
}

// Child opens a directory of the directory, or the one that a redirect names; nil when the view shows none. Errors do not
// name the path.
func (d *Dir) Child(name string) (*Dir, error) {
	if d == nil {
		return nil, nil
	}
	var c *Dir
	err := d.descend(0, name, func(at, layer int, name string) (string, bool, error) {
		sub, err := atfs.OpenDir(at, name)
		if err != nil {
			absent, notDir := missing(err) // a whiteout or a file hides what is further down
			if absent || notDir {
				err = nil
			}
			return "", notDir, err
		}
		if c == nil {
			c = &Dir{prefix: d.prefix, root: d.root}
		}
		m, err := c.add(sub, layer)
		if m.Opaque {
			m.Redirect = ""
		}
		return m.Redirect, m.Opaque, err
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Content opens what has the content of a metacopy file of the directory, whose marks m are. above is what [Dir.Lookup]
// returned for it, or negative when the file is on top of all these layers. No such content is class damaged; errors do
// not name the path. The caller closes it.
func (d *Dir) Content(above int, name string, m Marks) (fd int, err error) {
	fd, i := -1, 0
	if above >= 0 {
		i = 1 + slices.IndexFunc(d.parts, func(p part) bool { return p.fd == above })
	}
	if m.Redirect != "" {
		name = m.Redirect
		if name[0] == '/' && i > 0 {
			i = d.parts[i-1].layer + 1
		}
	}
	if d != nil {
		err = d.descend(i, name, func(at, _ int, name string) (string, bool, error) {
			var st unix.Stat_t
			if err := atfs.Lstat(at, name, &st); err != nil {
				if absent, notDir := missing(err); absent || notDir {
					err = nil
				}
				return "", false, err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFREG {
				return "", true, nil
			}
			file, err := atfs.OpenFile(at, name)
			if err != nil {
				return "", false, err
			}
			attrs, err := atfs.Xattrs(file, Own)
			var m Marks
			if err == nil {
				m, err = ReadMarks(d.prefix, attrs)
			}
			if err == nil && !m.Metacopy && !(m.Whiteout && st.Size == 0) {
				fd = file
				return "", true, nil
			}
			_ = unix.Close(file)
			return m.Redirect, !m.Metacopy, err
		})
	}
	if err == nil && fd < 0 {
		err = kimg.Errorf(kimg.ErrDamaged, "", "no layer below has the content of this file (metacopy)")
	}
	return fd, err
}
