//go:build linux

package untar

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

const (
	chunkSize  = 256 << 10 // small enough to stay in a cache between its readers
	chunkCount = 8         // 2 MiB read ahead
	grace      = 200 * time.Millisecond
)

// feed reads a stream ahead in one goroutine and hashes it in another, while a third takes it with Read. So a layer is
// decompressed, hashed and unpacked at the same time.
type feed struct {
	ctx   context.Context // of the one call the feed lives in
	full  chan *chunk
	hash  chan *chunk
	free  chan *chunk
	stop  chan struct{}
	once  sync.Once
	read  chan struct{} // closed when the reading goroutine has ended
	sum   chan []byte
	now   *chunk
	rest  []byte
	n     int64 // bytes taken
	ended error
}

// chunk is a piece of the stream that two goroutines use.
type chunk struct {
	data  []byte
	err   error // how the stream ended behind it
	users atomic.Int32
}

// newFeed starts reading r, which the feed closes. The caller calls finish or abandon.
func newFeed(ctx context.Context, r io.ReadCloser, take func(int64) error) *feed {
	f := &feed{
		ctx: ctx, full: make(chan *chunk, chunkCount), hash: make(chan *chunk, chunkCount), free: make(chan *chunk, chunkCount),
		stop: make(chan struct{}), read: make(chan struct{}), sum: make(chan []byte, 1),
	}
	for range chunkCount {
		f.free <- &chunk{}
	}
	go func() {
		defer close(f.read)
		defer close(f.hash)
		defer r.Close()
		f.fill(r, take)
	}()
	go func() {
		h := sha256.New()
		for c := range f.hash {
			h.Write(c.data)
			f.release(c)
		}
		f.sum <- h.Sum(nil)
	}()
	return f
}

func (f *feed) fill(r io.Reader, take func(int64) error) {
	for {
		select {
		case <-f.stop:
			return
		case c := <-f.free:
			if cap(c.data) == 0 {
				c.data = make([]byte, chunkSize)
			}
			var n int
			n, c.err = readFull(r, c.data[:chunkSize])
			c.data = c.data[:n]
			if take != nil && (c.err == nil || c.err == io.EOF) {
				if err := take(int64(n)); err != nil {
					c.err = err
				}
			}
			last := c.err != nil
			c.users.Store(2)
			f.full <- c // has room for all there are
			f.hash <- c
			if last {
				return
			}
		}
	}
}

// readFull fills p, or returns how the stream ended. A decoder that panics has met what it does not expect.
func readFull(r io.Reader, p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = kimg.Errorf(kimg.ErrInternal, "layer", "%v", v)
		}
	}()
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

func (f *feed) release(c *chunk) {
	if c.users.Add(-1) == 0 {
		f.free <- c
	}
}

// Read implements io.Reader. It does not wait for a source that blocks once the context is cancelled.
func (f *feed) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.now != nil {
			f.ended = f.now.err
			f.release(f.now)
			f.now = nil
		}
		if f.ended != nil {
			return 0, f.ended
		}
		select {
		case f.now = <-f.full:
			f.rest = f.now.data
		case <-f.ctx.Done():
			f.ended = context.Cause(f.ctx)
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	f.n += int64(n)
	return n, nil
}

// finish returns the digest of a stream that was read to its end.
func (f *feed) finish() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, <-f.sum)
}

// abandon ends the goroutines. The source is told to end by end, which may be nil; one that blocks all the same, as a terminal does,
// is not waited for once the context is cancelled.
func (f *feed) abandon(end func()) {
	f.once.Do(func() { close(f.stop) })
	if end != nil {
		end()
	}
	select {
	case <-f.read:
		return
	case <-f.ctx.Done():
	}
	select {
	case <-f.read:
	case <-time.After(grace):
	}
}

// why returns the reason why reading stopped: what the stream itself ended with says more than what came of that.
func (f *feed) why(err error) error {
	if f.ended != nil && !errors.Is(f.ended, io.EOF) {
		return f.ended
	}
	return err
}
