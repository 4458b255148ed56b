package layerdiff

import (
	"crypto/sha256"
	"io"

	digest "github.com/opencontainers/go-digest"
)

const (
	chunkSize  = 256 << 10 // one read of a large file: small enough to stay in a cache between its readers
	chunkCount = 8
)

// sink takes the tar stream: it counts and hashes it, the hashing in a goroutine of its own, and passes it on to a
// writer. Bytes are handed over without copying; their owner gets them back when both are done with them. Only one
// goroutine may call its methods. close must be called.
type sink struct {
	w      io.Writer // may be nil
	n      int64     // bytes so far
	report func(int64)
	pieces chan piece
	sum    chan []byte
	chunks chan []byte // empty chunks of chunkSize
	made   int         // chunks made so far
	small  []byte      // short pieces gathered in a chunk
	closed bool
}

// piece is bytes to hash, or the hand-back of bytes that were.
type piece struct {
	data  []byte
	chunk []byte
	batch *batch
	free  chan<- *batch
}

func newSink(w io.Writer, report func(int64)) *sink {
	if w == io.Discard {
		w = nil
	}
	s := &sink{
		w: w, report: report, pieces: make(chan piece, 2*chunkCount), sum: make(chan []byte, 1),
		chunks: make(chan []byte, chunkCount),
	}
	go func() {
		h := sha256.New()
		for p := range s.pieces {
			switch {
			case p.data != nil:
				h.Write(p.data)
			case p.chunk != nil:
				s.chunks <- p.chunk // has room for all there are
			default:
				p.free <- p.batch // likewise
			}
		}
		s.sum <- h.Sum(nil)
	}()
	return s
}

// chunk returns a buffer of chunkSize to be given back with release.
func (s *sink) chunk() []byte {
	if s.made < chunkCount {
		select {
		case c := <-s.chunks:
			return c
		default:
			s.made++
			return make([]byte, chunkSize)
		}
	}
	return <-s.chunks
}

// release hands back a chunk, in order with what was put before.
func (s *sink) release(c []byte) { s.pieces <- piece{chunk: c} }

// releaseBatch hands back a batch in the same way, through free.
func (s *sink) releaseBatch(b *batch, free chan<- *batch) { s.pieces <- piece{batch: b, free: free} }

// put adds bytes that stay untouched until a release that follows.
func (s *sink) put(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	return s.pass(data)
}

// add adds a few bytes, copying them.
func (s *sink) add(data []byte) error {
	for len(data) > 0 {
		if s.small == nil {
			s.small = s.chunk()[:0]
		}
		n := min(len(data), chunkSize-len(s.small))
		s.small = append(s.small, data[:n]...)
		data = data[n:]
		if len(s.small) == chunkSize {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush passes on what add gathered.
func (s *sink) flush() error {
	if s.small == nil {
		return nil
	}
	c := s.small
	s.small = nil
	err := s.pass(c)
	s.release(c[:chunkSize])
	return err
}

func (s *sink) pass(data []byte) error {
	s.pieces <- piece{data: data}
	s.n += int64(len(data))
	if s.w != nil {
		if _, err := s.w.Write(data); err != nil {
			return err
		}
	}
	if s.report != nil {
		s.report(s.n)
	}
	return nil
}

// close ends the goroutine and returns the digest of what was passed on.
func (s *sink) close() digest.Digest {
	if s.closed {
		return ""
	}
	s.closed = true
	close(s.pieces)
	return digest.NewDigestFromBytes(digest.SHA256, <-s.sum)
}
