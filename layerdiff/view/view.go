// Package view reads an overlay without mounting it: the tree that the kernel would show of layers on top of each other,
// with whiteouts (devices and marked files), opaque and redirected directories and files whose content stayed below
// (metacopy).
//
// Every look-up is relative to a directory that is already open and takes one component at a time; no symbolic link is
// followed below the directories the caller names, and a redirect can only lead to another place of the same layers.
package view

// The two families of extended attributes that overlayfs keeps its own marks in.
const (
	TrustedPrefix = "trusted.overlay." // a store of the real root
	UserPrefix    = "user.overlay."    // a store inside a user namespace (mount option userxattr)
)

// Stack names the directories a tree consists of, and those it is compared with. The zero value of XattrPrefix means
// [TrustedPrefix].
type Stack struct {
	Upper       string   // what was written on top; empty when there is no such directory
	Lowers      []string // the layers below, top first; may be empty
	XattrPrefix string   // TrustedPrefix or UserPrefix

	// Base is what the tree is compared with, layers of the same kind, top first. Nil means Lowers, so that what was
	// written to Upper is the difference. Empty and not nil means nothing: the difference is the whole tree.
	Base []string

	// Plain says that Upper is a whole tree by itself, as a mount shows it, and that nothing in it is a mark. It is
	// compared with Base, or with Lowers when that is nil: at most one directory, which is such a tree too.
	Plain bool
}

// Prefix returns the prefix of the attributes that are marks in this stack, empty when none are.
func (s Stack) Prefix() string {
	switch {
	case s.Plain:
		return ""
	case s.XattrPrefix == "":
		return TrustedPrefix
	}
	return s.XattrPrefix
}

// Compared returns the layers that the tree is compared with.
func (s Stack) Compared() []string {
	if s.Base == nil {
		return s.Lowers
	}
	return s.Base
}
