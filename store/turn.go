package store

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/safeopen"
)

// turnPatience is how long somebody waits for a turn: what holds one may hang, and then nobody must hang with it.
const turnPatience = time.Second

// Turn waits until few enough do heavy work on this store that the machine has room for what only takes a moment. One pass
// over a layer keeps two processors busy, so there is a turn for every two. It is manners, not a lock: who has waited for
// a second, or whose ctx ends, goes on without, and so does everybody where the store is wrapped or cannot be locked. The
// caller calls done, once or more, when the work is done; a turn ends with its process.
func (s *Store) Turn(ctx context.Context) (done func()) {
	none := func() {}
	if !s.opened || s.makeIntentDir() != nil {
		return none
	}
	f, err := safeopen.OpenLock(filepath.Join(s.intentDir(), "digests.lock"))
	if err != nil {
		return none
	}
	for end := time.Now().Add(turnPatience); ; {
		// The first bytes of the file: no digest chooses them, but for one in 2⁵⁵.
		for i := range (runtime.NumCPU() + 1) / 2 {
			switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: int64(i), Len: 1}); {
			case err == nil:
				return sync.OnceFunc(func() { f.Close() })
			case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
				f.Close()
				return none
			}
		}
		if ctx.Err() != nil || time.Now().After(end) {
			f.Close()
			return none
		}
		time.Sleep(lockPoll)
	}
}
