//go:build linux

package view

import (
	"errors"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// Own reports whether an extended attribute is one that overlayfs keeps for itself, in either family. Such an attribute
// never enters a layer: another store would take it for its own.
func Own(name string) bool {
	return strings.HasPrefix(name, TrustedPrefix) || strings.HasPrefix(name, UserPrefix)
}

// Marks reads overlay's own attributes of a file of a stack with the given prefix and says whether they make a directory
// opaque. What this package cannot follow is an error of class unsupported, without the path.
func Marks(prefix string, attrs []atfs.Xattr, dir bool) (opaque bool, err error) {
	for _, a := range attrs {
		mark, ok := strings.CutPrefix(a.Name, prefix)
		if !ok {
			continue
		}
		switch {
		case mark == "opaque" && dir && a.Value == "y":
			opaque = true
		case mark == "opaque" && dir && a.Value == "x", mark == "whiteout" && !dir:
			return false, errMark("whiteouts in the form of attributes", a.Name)
		case mark == "metacopy":
			return false, errMark("a file whose content stayed in a lower layer (metacopy)", a.Name)
		case mark == "redirect" && dir: // on a file it only means something together with metacopy
			return false, errMark("a renamed directory (redirect_dir)", a.Name)
		case strings.HasPrefix(mark, "overlay."):
			return false, errMark("an escaped overlay attribute", a.Name)
		}
	}
	return opaque, nil
}

func errMark(what, attr string) error {
	return &kimg.Error{Class: kimg.ErrUnsupported, Err: errors.New(what + " is not supported (" + kimg.Quote(attr) + ")")}
}
