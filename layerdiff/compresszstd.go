package layerdiff

import (
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/kimg/kimg"
)

// frameSize is how much one zstd frame holds; the frames know nothing of each other. It decides the bytes of the output, as
// the window does, so neither depends on the machine.
const frameSize = 4 << 20

// defaultZstd is the level of zstd when none is given: that of the zstd command.
const defaultZstd = 3

// slowZstd is the level from which on every job needs 50 MiB, so that there is one.
const slowZstd = 10

// zstdPool is what the layers that are compressed side by side share.
type zstdPool struct {
	enc  *zstd.Encoder
	free chan *frame // what bounds the memory
}

// zstdWriter cuts its input into frames (RFC 8878, 3.1: a stream is any number of them), compresses them side by side and
// writes them in order.
type zstdWriter struct {
	*zstdPool
	current *frame
	queue   chan *frame // in the order of the input
	done    chan error  // the writing goroutine has ended
	failed  atomic.Pointer[error]
	started bool // a frame was begun: only an empty input gives an empty one
	closed  bool
}

type frame struct {
	in, out []byte
	ready   chan struct{} // one value: out is complete
}

func newZstdPool(level, jobs int) (*zstdPool, error) {
	if level == 0 {
		level = defaultZstd
	}
	if level >= slowZstd {
		jobs = 1
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithWindowSize(frameSize),
		zstd.WithEncoderConcurrency(jobs), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, kimg.Wrap("zstd", err)
	}
	frames := jobs + 2 // two layers fill one each while the others are compressed
	p := &zstdPool{enc: enc, free: make(chan *frame, frames)}
	for range frames {
		p.free <- &frame{ready: make(chan struct{}, 1)}
	}
	return p, nil
}

// writer begins a stream. A writer that fills a frame needs no other one to go on, so writers never wait for each other for ever.
func (p *zstdPool) writer(w io.Writer) *zstdWriter {
	z := &zstdWriter{zstdPool: p, queue: make(chan *frame, cap(p.free)), done: make(chan error, 1)}
	go z.drain(w)
	return z
}

// Write implements io.Writer.
func (z *zstdWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if err := z.failed.Load(); err != nil {
			return n, *err
		}
		if z.current == nil {
			z.current, z.started = <-z.free, true
			z.current.in = z.current.in[:0]
			if z.current.in == nil {
				z.current.in = make([]byte, 0, frameSize)
				z.current.out = make([]byte, 0, frameSize+frameSize/64) // growing leaves as much again for the collector
			}
		}
		f := z.current
		part := p[n:min(len(p), n+frameSize-len(f.in))]
		f.in = append(f.in, part...)
		if n += len(part); len(f.in) == frameSize {
			z.submit()
		}
	}
	return len(p), nil
}

// submit has the current frame compressed.
func (z *zstdWriter) submit() {
	f := z.current
	z.current = nil
	z.queue <- f
	go func() {
		f.out = z.enc.EncodeAll(f.in, f.out[:0])
		f.ready <- struct{}{}
	}()
}

// drain writes the frames in order. After a failure it only takes them, so that nobody waits for ever.
func (z *zstdWriter) drain(w io.Writer) {
	var failed error
	for f := range z.queue {
		<-f.ready
		if failed == nil {
			if _, failed = w.Write(f.out); failed != nil {
				z.failed.Store(&failed)
			}
		}
		z.free <- f
	}
	z.done <- failed
}

// Close implements io.Closer: the rest is written and every goroutine has ended when it returns.
func (z *zstdWriter) Close() error {
	if z.closed {
		return nil
	}
	z.closed = true
	if !z.started {
		z.current = <-z.free
	}
	if z.current != nil {
		z.submit()
	}
	close(z.queue)
	return <-z.done
}
