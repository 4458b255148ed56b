// Package view reads an overlay stack without mounting it: an upper directory over the merged view of lower directories,
// with whiteouts and opaque directories as the kernel writes them.
//
// Nothing is looked up by a path of more than one component and no symbolic link is followed below the directories the
// caller names: every look-up is relative to a directory that is already open. What this package does not understand
// (metacopy files, redirected directories, escaped or extended whiteouts) is refused by name, class unsupported.
package view

// The two families of extended attributes that overlayfs keeps its own marks in.
const (
	TrustedPrefix = "trusted.overlay." // a store of the real root
	UserPrefix    = "user.overlay."    // a store inside a user namespace (mount option userxattr)
)

// Stack names the directories of one overlay. The zero value of XattrPrefix means [TrustedPrefix].
type Stack struct {
	Upper       string   // what was written on top
	Lowers      []string // the layers below, top first; may be empty
	XattrPrefix string   // TrustedPrefix or UserPrefix
}

// Prefix returns the prefix of the attributes that mark directories of this stack.
func (s Stack) Prefix() string {
	if s.XattrPrefix == "" {
		return TrustedPrefix
	}
	return s.XattrPrefix
}
