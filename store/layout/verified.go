package layout

import (
	"os"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
)

// Verified remembers which blobs of destinations were found good, so that the next image with the same blobs does not
// read them again. A file that changed in any way since, is read again. It is safe for concurrent use.
type Verified struct {
	mu   sync.Mutex
	good map[digest.Digest]map[state]bool
}

// state tells a file, and one content of it, from every other.
type state struct {
	dev, ino   uint64
	size       int64
	ctim, mtim syscall.Timespec
}

func stateOf(info os.FileInfo) (state, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return state{}, false
	}
	return state{uint64(st.Dev), st.Ino, st.Size, st.Ctim, st.Mtim}, true
}

// knows reports whether a file was found to be the blob. Nil knows nothing.
func (v *Verified) knows(d digest.Digest, info os.FileInfo) bool {
	s, ok := stateOf(info)
	if v == nil || !ok {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.good[d][s]
}

// learn remembers that a file is the blob.
func (v *Verified) learn(d digest.Digest, info os.FileInfo) {
	s, ok := stateOf(info)
	if v == nil || !ok {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.good == nil {
		v.good = map[digest.Digest]map[state]bool{}
	}
	if v.good[d] == nil {
		v.good[d] = map[state]bool{}
	}
	v.good[d][s] = true
}
