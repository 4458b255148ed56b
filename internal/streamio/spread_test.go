package streamio

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestSpread: pieces of every length come out in order, and their digest.
func TestSpread(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var in, out bytes.Buffer
		s := NewSpread(&out)
		for range r.IntN(40) {
			p := make([]byte, []int{0, 1, 511, pieceSize, 3*pieceSize + 1}[r.IntN(5)])
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			in.Write(p)
			if n, err := s.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			clear(p) // is the caller's again
		}
		if d, err := s.End(); err != nil || d != digest.FromBytes(in.Bytes()) || !bytes.Equal(in.Bytes(), out.Bytes()) {
			t.Errorf("seed %d: %s, %v; %d of %d bytes", seed, d, err, out.Len(), in.Len())
		}
	}
	s := NewSpread(full{})
	var err error
	for range 10 {
		if _, err = s.Write(make([]byte, pieceSize)); err != nil {
			break
		}
	}
	if _, end := s.End(); !errors.Is(err, errFull) || !errors.Is(end, errFull) {
		t.Errorf("%v, %v", err, end)
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
