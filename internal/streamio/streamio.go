// Package streamio counts, hashes and verifies bytes while they stream.
package streamio

import (
	"bytes"
	"context"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// Meter passes everything written on to a writer and knows how many bytes that were and their sha256.
type Meter struct {
	w io.Writer
	h hash.Hash
	n int64
}

// NewMeter returns a Meter in front of w; w nil means the bytes are only measured.
func NewMeter(w io.Writer) *Meter {
	if w == nil {
		w = io.Discard
	}
	return &Meter{w: w, h: digest.SHA256.Hash()}
}

// Write implements io.Writer. Bytes the writer behind did not take are not measured.
func (m *Meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.h.Write(p[:n])
	m.n += int64(n)
	return n, err
}

// Size returns the number of bytes so far.
func (m *Meter) Size() int64 { return m.n }

// Digest returns the sha256 of the bytes so far.
func (m *Meter) Digest() digest.Digest { return digest.NewDigest(digest.SHA256, m.h) }

// Verifier reads at most a declared number of bytes and turns the end of the stream into an error of class integrity
// unless exactly these bytes came. Only after io.EOF from Read is the content known to be good.
type Verifier struct {
	r    io.Reader
	h    digest.Verifier
	want digest.Digest
	size int64 // as declared; -1: unknown
	n    int64
	err  error // sticky
}

// NewVerifier returns a reader of r that checks its digest and, unless size is -1, its size. Digests of an algorithm
// this program cannot compute are class unsupported, malformed ones class invalid.
func NewVerifier(r io.Reader, size int64, want digest.Digest) (*Verifier, error) {
	switch err := want.Validate(); {
	case err == digest.ErrDigestUnsupported:
		return nil, kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(want.String(), 200), "digest algorithm cannot be verified")
	case err != nil:
		return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Escape(want.String(), 200), "not a digest: %w", err)
	}
	return &Verifier{r: r, h: want.Verifier(), want: want, size: size}, nil
}

// buffers are what [Copy] copies through; 1 MiB each.
var buffers = sync.Pool{New: func() any { return new([1 << 20]byte) }}

// Copy is io.Copy through a large buffer that is used again, unless one of the two knows a shorter way.
func Copy(w io.Writer, r io.Reader) (int64, error) {
	if _, file := w.(*os.File); file { // its own way ends in a small buffer when r is not a file
		if _, other := r.(*os.File); !other {
			w = struct{ io.Writer }{w}
		}
	}
	buf := buffers.Get().(*[1 << 20]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(w, r, buf[:])
}

// Check verifies a document in memory: class integrity unless want is its digest, else the errors of [NewVerifier].
func Check(data []byte, want digest.Digest) error {
	v, err := NewVerifier(bytes.NewReader(data), -1, want)
	if err == nil {
		_, err = io.Copy(io.Discard, v)
	}
	return err
}

// Read implements io.Reader. It never reads more than one byte past the declared size.
func (v *Verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if v.size >= 0 && int64(len(p)) > v.size-v.n+1 {
		p = p[:v.size-v.n+1]
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.size >= 0 && v.n > v.size {
		v.err = kimg.Errorf(kimg.ErrIntegrity, v.want.String(), "more than the declared %d bytes", v.size)
		return 0, v.err
	}
	_, _ = v.h.Write(p[:n]) // a hash never fails
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = v.atEnd()
	}
	v.err = err
	return n, err
}

func (v *Verifier) atEnd() error {
	if v.size >= 0 && v.n != v.size {
		return kimg.Errorf(kimg.ErrIntegrity, v.want.String(), "cut short: %d of %d bytes", v.n, v.size)
	}
	if !v.h.Verified() {
		return kimg.Errorf(kimg.ErrIntegrity, v.want.String(), "the content has another digest")
	}
	return io.EOF
}

// WithContext returns a reader that fails with the context's error as soon as it is cancelled. It cannot interrupt a
// Read that is blocked.
func WithContext(ctx context.Context, r io.Reader) io.Reader { return &contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
