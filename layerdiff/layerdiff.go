// Package layerdiff turns what a container changed into a layer: a list of changes, a canonical tar stream, or a staged
// directory ready to become a layer of the store.
//
// One walk over the overlay's upper directory, in lexical order, feeds all three. The tar stream is canonical: the same
// tree gives the same bytes however and whenever it was written, so that equal changes give equal digests. Every path of
// the upper directory is in the layer, or is listed in [Blob.LeftOut], or the call fails naming it.
package layerdiff

import (
	"io"
	"log/slog"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Options says how a layer is made. The zero value is the usual case: identity id maps, one job per processor, every
// path readable.
type Options struct {
	UIDs, GIDs IDMap // the container's id maps; empty is identity

	Jobs           int  // files read and staged at the same time; 0 is one per processor
	SkipUnreadable bool // list files that may not be opened in LeftOut instead of failing

	// Clamp is the latest time a file of the layer may have: later ones become it. Nil changes none.
	Clamp *time.Time

	// Live says that somebody may be writing to the tree: files that changed within the last moments are waited for. A file that
	// changes while it is read is read again a few times, live or not, before that is an error; what is written to a mapping of
	// a file shows in its times late or never.
	Live bool

	// MountTargets are paths, absolute within the container, at which whoever ran it makes an empty file or directory to mount
	// something on. Those that look like that and that the base does not have are listed in LeftOut.
	MountTargets []string

	// Links lets Stage share the upper's files as hard links instead of copying them. Only for an upper directory that
	// is deleted afterwards: overlay writes in place. With id maps, with Clamp, or across file systems, files are copied all the same.
	Links bool

	Tar io.Writer // gets the tar of a layer that Stage stages, as Write would write it; may be nil

	Logger   *slog.Logger      // told about each layer at level debug; nil discards
	Progress func(bytes int64) // told how many bytes of tar are done so far; called from one goroutine; may be nil
}

// Skip is a path that is not in the layer, and why.
type Skip struct {
	Path   string // absolute within the container
	Reason string
}

// Blob describes the layer that was written.
type Blob struct {
	DiffID     digest.Digest // of the uncompressed tar
	Size       int64         // of the uncompressed tar, in bytes
	Entries    int           // tar members
	Empty      bool          // nothing changed: DiffID is that of an empty tar
	UIDs, GIDs []uint32      // distinct owners as the container sees them, sorted
	LeftOut    []Skip        // in walk order
}

// ChangeKind says what happened to a path.
type ChangeKind byte

// The kinds of change, as the letters podman and docker print.
const (
	Added   ChangeKind = 'A'
	Changed ChangeKind = 'C'
	Deleted ChangeKind = 'D'
)

// String returns the letter of the kind.
func (k ChangeKind) String() string { return string(rune(k)) }

// FileType is the type of a file, as the letters of find -type; 'h' is a second name of a file listed before.
type FileType byte

// The types of file.
const (
	TypeFile    FileType = 'f'
	TypeDir     FileType = 'd'
	TypeSymlink FileType = 'l'
	TypeLink    FileType = 'h'
	TypeChar    FileType = 'c'
	TypeBlock   FileType = 'b'
	TypeFifo    FileType = 'p'
)

// String returns the letter of the type.
func (t FileType) String() string { return string(rune(t)) }

// Change is one path that differs from the layers below.
type Change struct {
	Path     string     // absolute within the container
	Kind     ChangeKind // for Deleted the fields below describe what was there
	Type     FileType
	Mode     uint32 // permission, setuid, setgid and sticky bits
	UID, GID uint32 // as the container sees them
	Size     int64  // of a file's content
	Link     string // target of a symbolic link; for TypeLink the path (absolute) of the first name
}
