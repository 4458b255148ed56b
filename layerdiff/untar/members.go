//go:build linux

package untar

import (
	"archive/tar"
	"context"
	"io"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/tarmember"
)

// Limits of what a tar may bring besides the content of its files, in bytes. It all ends up in the layer's record.
const (
	maxHeader = 4 << 20 // of one member, with what belongs to it
	maxRaw    = 1 << 30 // of all members
	maxTail   = 32 << 20
)

// members reads a tar member by member, and keeps the bytes that are not content.
type members struct {
	*feed
	tar  *tar.Reader
	raw  []byte // since the last content
	keep bool   // what is read now is not content
	all  int64  // bytes kept so far
	n    int

	through io.Writer // gets all that is read; may be nil
}

func newMembers(ctx context.Context, r io.ReadCloser, take func(int64) error) *members {
	m := &members{feed: newFeed(ctx, r, take)}
	m.tar = tar.NewReader(rawReader{m})
	return m
}

// rawReader is what the tar is read from; all it reads is kept unless it is content.
type rawReader struct{ m *members }

func (r rawReader) Read(p []byte) (int, error) {
	n, err := r.m.feed.Read(p)
	if r.m.through != nil {
		if _, werr := r.m.through.Write(p[:n]); werr != nil {
			return n, werr
		}
	}
	if r.m.keep {
		r.m.raw = append(r.m.raw, p[:n]...)
		r.m.all += int64(n)
		if len(r.m.raw) > maxHeader || r.m.all > maxRaw {
			return n, kimg.Errorf(kimg.ErrLimit, "layer", "more than %d bytes of headers for a member, or %d for all", maxHeader, maxRaw)
		}
	}
	return n, err
}

// next returns the next member, checked; nil at the end of the archive. raw holds the bytes before its content.
func (m *members) next() (*tar.Header, error) {
	m.raw, m.keep = m.raw[:0], true
	h, err := m.tar.Next()
	m.keep = false
	if err == io.EOF {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if m.n++; m.n > tarmember.MaxMembers {
		return nil, kimg.Errorf(kimg.ErrLimit, "layer", "more than %d members", tarmember.MaxMembers)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return h, nil
	}
	return h, tarmember.Check(h)
}

// tail reads what comes behind the archive, which belongs to the stream, in pieces.
func (m *members) tail(do func([]byte)) error {
	buf := make([]byte, 32<<10)
	for total := 0; ; {
		n, err := rawReader{m}.Read(buf)
		if n > 0 {
			do(buf[:n])
		}
		if total += n; total > maxTail {
			return kimg.Errorf(kimg.ErrLimit, "layer", "more than %d bytes behind the end of the tar", maxTail)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// class gives what went wrong while a tar was read its class.
func (m *members) class(err error) error { return tarmember.Explain(m.why(err)) }
