// Package compression tells how a stream is compressed from its first bytes, and reads it, in this process: it starts no
// programs. Every form is read to its very end, so that checksums, lengths and what follows the data are checked.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/kimg/kimg"
)

// Algorithm is how a stream is compressed.
type Algorithm string

// The algorithms.
const (
	None  Algorithm = "none"
	Gzip  Algorithm = "gzip"
	Zstd  Algorithm = "zstd"
	Bzip2 Algorithm = "bzip2"
	Xz    Algorithm = "xz"
)

// maxWindow bounds the memory, in bytes, that a zstd or xz stream may ask for (failure model: 256 MiB in all).
const maxWindow = 64 << 20

// buffered is how much is read at a time.
const buffered = 256 << 10

// firstBytes is how many bytes of a stream decide.
const firstBytes = 32

// Detect tells the algorithm from the first bytes of a stream: 6 are enough. What is none of them is not compressed.
func Detect(first []byte) Algorithm {
	for _, m := range []struct {
		magic string
		a     Algorithm
	}{{"\x1f\x8b\x08", Gzip}, {"\x28\xb5\x2f\xfd", Zstd}, {"BZh", Bzip2}, {"\xfd7zXZ\x00", Xz}} {
		if bytes.HasPrefix(first, []byte(m.magic)) {
			return m.a
		}
	}
	return None
}

// NewReader returns the plain form of a stream and how it is compressed. The stream is valid only when the reader has come
// to io.EOF: a stream that is cut short, has a wrong checksum or length, or goes on after its end is class integrity
// ("layer-data"), one that asks for too much memory class limit. Errors of r itself are passed on. The caller closes the
// reader; r stays open. Reading ends when ctx does, which also r should: a few bytes of it can unpack to many.
func NewReader(ctx context.Context, r io.Reader) (io.ReadCloser, Algorithm, error) {
	src := &source{r: r}
	b := bufio.NewReaderSize(src, buffered)
	first, err := b.Peek(firstBytes)
	if err != nil && err != io.EOF {
		return nil, "", src.class(err)
	}
	a := Detect(first)
	plain, err := open(b, a, first)
	if err != nil {
		return nil, a, src.class(err)
	}
	return &reader{plain, src, ctx}, a, nil
}

func open(b *bufio.Reader, a Algorithm, first []byte) (io.ReadCloser, error) {
	switch a {
	case Gzip:
		return gzip.NewReader(b)
	case Zstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(b)), nil
	case Xz:
		x, err := newXZ(b)
		return io.NopCloser(x), err
	}
	return io.NopCloser(b), nil
}

// source remembers what went wrong below the decoder, so that it is told from what the decoder finds wrong.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// class gives an error of the decoder its class.
func (s *source) class(err error) error {
	if s.err != nil {
		return s.err
	}
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return kimg.Errorf(kimg.ErrLimit, "", "too-big: a zstd stream that needs more than %d bytes of memory", maxWindow)
	}
	if kimg.ClassOf(err) != kimg.ErrInternal {
		return err
	}
	return kimg.Errorf(kimg.ErrIntegrity, "", "layer-data: %w", err)
}

type reader struct {
	io.ReadCloser
	src *source
	ctx context.Context
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = r.src.class(err)
	}
	return n, err
}
