//go:build linux

package view

import (
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// Own reports whether an extended attribute is one that overlayfs keeps for itself, in either family. Such an attribute
// never enters a layer: another store would take it for its own.
func Own(name string) bool {
	return strings.HasPrefix(name, TrustedPrefix) || strings.HasPrefix(name, UserPrefix)
}

// Marks is what overlay's own attributes say about a file. Those that say nothing about the tree (origin, impure, nlink,
// uuid and others) are passed over, as the kernel does.
type Marks struct {
	Opaque    bool   // a directory that hides what is below
	Whiteouts bool   // a directory in which marked files may stand for deletions
	Whiteout  bool   // stands for a deletion, if it is an empty regular file
	Metacopy  bool   // a file whose content is that of the file below
	Redirect  string // the layers below have it under this name beside it, or this path from their root; empty: its own
	Escaped   string // one attribute of overlay's families that belongs to the tree itself, by the name the view shows
}

// ReadMarks reads the marks among a file's attributes. With no prefix nothing is one. An error is of class damaged and
// does not name the path.
func ReadMarks(prefix string, attrs []atfs.Xattr) (m Marks, err error) {
	for _, a := range attrs {
		mark, ok := strings.CutPrefix(a.Name, prefix)
		if !ok || prefix == "" {
			continue
		}
		switch mark {
		case "opaque":
			m.Opaque, m.Whiteouts = a.Value == "y", a.Value == "x"
		case "whiteout":
			m.Whiteout = true
		case "metacopy":
			m.Metacopy = true
		case "redirect":
			if !validRedirect(a.Value) {
				return m, kimg.Errorf(kimg.ErrDamaged, "", "overlay's mark of where it came from (%s) is not a path: %s", a.Name, kimg.Quote(a.Value))
			}
			m.Redirect = a.Value
		default:
			if name, ok := strings.CutPrefix(mark, "overlay."); ok {
				m.Escaped = prefix + name
			}
		}
	}
	return m, nil
}

// validRedirect accepts a name, or a path that begins with a slash.
func validRedirect(path string) bool {
	if rest, ok := strings.CutPrefix(path, "/"); ok {
		path = rest
	} else if strings.Contains(path, "/") {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.Contains(name, "\x00") {
			return false
		}
	}
	return true
}
