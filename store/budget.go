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

// share is what one layer takes of a budget.
type share struct {
	of *budget
	n  atomic.Int64
}

func (b *budget) layer() *share { return &share{of: b} }

// take asks for room.
func (s *share) take(more int64) error {
	n, left := s.n.Add(more), s.of.left.Add(-more)
	switch {
	case n > maxLayerSize:
		return kimg.Errorf(kimg.ErrLimit, "layer", "an uncompressed layer of more than %d bytes", int64(maxLayerSize))
	case left >= 0:
		return nil
	case s.of.disk:
		return kimg.Errorf(kimg.ErrNoSpace, "layer", "there is no room for it in the store")
	}
	return kimg.Errorf(kimg.ErrLimit, "layer", "layers of more than %d bytes together", int64(maxImageSize))
}

// back gives all of it back.
func (s *share) back() { s.of.left.Add(s.n.Swap(0)) }
