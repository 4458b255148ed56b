package store

import (
	"context"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// Staged is a layer in a directory where nobody sees it yet.
type Staged struct {
	DiffID digest.Digest // of the uncompressed tar
	Size   int64         // of the uncompressed tar, in bytes
	UIDs   []uint32      // owners in the layer, sorted, each once
	GIDs   []uint32
	// TarSplit is the uncompressed tar-split record of the layer, unlinked already. The store closes it. It may be nil
	// only when Empty is set.
	TarSplit *os.File
	Empty    bool // nothing is in the layer: no layer is made
}

// LayerSource is a layer on its way into a store.
type LayerSource interface {
	// Stage fills dir, an empty directory, with the layer in overlay's on-disk form: character device 0/0 for a
	// deletion, overlay's own attributes, container ids. On an error the directory is thrown away, and so is TarSplit.
	Stage(ctx context.Context, dir string) (Staged, error)
	// Stream writes the layer as an uncompressed tar, for a store whose driver keeps whole trees. empty: as in Staged.
	Stream(ctx context.Context, w io.Writer) (empty bool, err error)
}

// StagedLayer is a layer of a [Tx] that is applied when the change is recorded.
type StagedLayer struct {
	ID       string // of the layer it will be: by containers/image's scheme; of the parent when Empty
	Parent   string
	DiffID   digest.Digest
	Size     int64
	Empty    bool              // there is no layer
	Existing bool              // the store had the same layer already
	Labels   map[string]string // kept with the layer when this change makes it; to be set before it is recorded

	out      *stagedOutput // nil: the store had it, and it was not made
	depth    int           // layers up to this one
	verified verifiedAt    // when the existing layer that was verified was made
	applied  bool          // by this change
	partial  bool          // the store does not know its diffID
}

// layerID is the id containers/image gives a layer, so that every tool finds it again.
func layerID(parent string, diffID digest.Digest) string {
	if parent == "" {
		return diffID.Encoded()
	}
	return digest.Canonical.FromString(parent + "+" + diffID.Encoded()).Encoded()
}
