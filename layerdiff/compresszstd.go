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

// zstdWriter cuts its input into frames (RFC 8878, 3.1: a stream is any number of them), compresses them side by side and
// writes them in order.
type zstdWriter struct {
	enc     *zstd.Encoder
	current *frame
	free    chan *frame // what bounds the memory
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

func compressZstd(w io.Writer, level, jobs int) (io.WriteCloser, error) {
	if level == 0 {
		level = defaultZstd
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithWindowSize(frameSize),
		zstd.WithEncoderConcurrency(jobs), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, kimg.Wrap("zstd", err)
	}
	frames := jobs + 1 // one is filled while the others are compressed
	z := &zstdWriter{enc: enc, free: make(chan *frame, frames), queue: make(chan *frame, frames), done: make(chan error, 1)}
	for range frames {
		z.free <- &frame{ready: make(chan struct{}, 1)}
	}
	go z.drain(w)
	return z, nil
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
