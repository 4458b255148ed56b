package store

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// The largest uncompressed layer, and the largest layers of one change together, in bytes (failure model).
const (
	maxLayerSize = 64 << 30
	maxImageSize = 256 << 30
)

// budget is what the foreign layers of one change may take, all of them together: in bytes of their tars, which is what they need
// on disk but for what is small. 5 % of what is free stays free.
type budget struct {
	left atomic.Int64
	disk bool // it is the file system that bounds it
}

// newBudget is what a store in a directory has room for; where that cannot be told, the limit of an image.
func newBudget(dir string) *budget {
	b, room := &budget{}, int64(maxImageSize)
	var st unix.Statfs_t
	if dir != "" && unix.Statfs(dir, &st) == nil && st.Blocks > 0 {
		if free := int64(st.Bavail) * int64(st.Bsize); free-free/20 < room {
			room, b.disk = free-free/20, true
		}
	}
	b.left.Store(room)
	return b
}

// layer returns the function that one layer asks for room.
func (b *budget) layer() func(int64) error {
	var n atomic.Int64
	return func(more int64) error {
		if n.Add(more) > maxLayerSize {
			return kimg.Errorf(kimg.ErrLimit, "layer", "an uncompressed layer of more than %d bytes", int64(maxLayerSize))
		}
		switch {
		case b.left.Add(-more) >= 0:
			return nil
		case b.disk:
			return kimg.Errorf(kimg.ErrNoSpace, "layer", "there is no room for it in the store")
		}
		return kimg.Errorf(kimg.ErrLimit, "layer", "layers of more than %d bytes together", int64(maxImageSize))
	}
}
