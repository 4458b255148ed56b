package streamio

import (
	"io"

	"github.com/opencontainers/go-digest"
)

const (
	pieceSize  = 256 << 10
	pieceCount = 3
)

// Spread passes everything written on to a writer, in large pieces, and hashes it in a goroutine of its own: reading and hashing
// take two processors.
type Spread struct {
	w    io.Writer
	now  []byte
	err  error // of w, sticky
	full chan []byte
	free chan []byte
	sum  chan digest.Digest
}

// NewSpread returns a Spread in front of w. The caller calls End.
func NewSpread(w io.Writer) *Spread {
	s := &Spread{w: w, full: make(chan []byte, pieceCount), free: make(chan []byte, pieceCount), sum: make(chan digest.Digest, 1)}
	for range pieceCount {
		s.free <- nil
	}
	go func() {
		h := digest.SHA256.Hash()
		for p := range s.full {
			h.Write(p)
			s.free <- p[:0]
		}
		s.sum <- digest.NewDigest(digest.SHA256, h)
	}()
	return s
}

// Write implements io.Writer. An error may be that of an earlier piece.
func (s *Spread) Write(p []byte) (int, error) {
	for n := 0; ; {
		if s.now == nil {
			if s.now = <-s.free; s.now == nil {
				s.now = make([]byte, 0, pieceSize)
			}
		}
		room := min(pieceSize-len(s.now), len(p)-n)
		s.now = append(s.now, p[n:n+room]...)
		if n += room; n == len(p) || s.err != nil {
			return n, s.err
		}
		s.pass()
	}
}

// pass writes the piece that is full, and has it hashed.
func (s *Spread) pass() {
	if s.err == nil {
		_, s.err = s.w.Write(s.now)
	}
	s.full <- s.now
	s.now = nil
}

// End writes what is left and returns the sha256 of everything. It is called once, also after an error.
func (s *Spread) End() (digest.Digest, error) {
	if len(s.now) > 0 {
		s.pass()
	}
	close(s.full)
	return <-s.sum, s.err
}
