// Package recipe finds out how a compressed layer was made, so that it can be made again, byte for byte, from the tar that is
// kept anyway. A recipe counts only when it is proven: what it makes is compared with the blob, all of it.
package recipe

import (
	"bufio"
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff"
)

// Recipe says how a blob is made of a tar. What it makes may differ in another release of kimg: compare the digest.
type Recipe struct {
	Encoder string `json:"encoder"`          // one of encoders
	Level   int    `json:"level"`            // the encoder's own
	Header  []byte `json:"header,omitempty"` // of gzip (RFC 1952, 2.3), as the blob has it
}

// encoder is a program that people make layers with, by the library it compresses with.
type encoder struct {
	name   string
	algo   compression.Algorithm
	levels []int
	open   func(w io.Writer, level, jobs int) (io.WriteCloser, error)
}

// encoders are tried in this order.
func encoders() []encoder {
	gzips := []int{6, 5, 9, 1, 2, 3, 4, 7, 8} // the defaults first
	return []encoder{
		{"go", compression.Gzip, gzips, func(w io.Writer, level, _ int) (io.WriteCloser, error) { return stdgzip.NewWriterLevel(w, level) }}, // docker, containerd, ko
		{"pgzip", compression.Gzip, gzips, func(w io.Writer, level, jobs int) (io.WriteCloser, error) { // podman, buildah, skopeo, kimg
			return layerdiff.Compress(w, layerdiff.Gzip, level, jobs)
		}},
		{"klauspost", compression.Gzip, gzips, func(w io.Writer, level, _ int) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) }},
		{"zstd", compression.Zstd, []int{2, 1, 3, 4}, func(w io.Writer, level, jobs int) (io.WriteCloser, error) { // buildkit, buildah
			return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevel(level)), zstd.WithEncoderConcurrency(max(jobs, 1)))
		}},
		{"kimg-zstd", compression.Zstd, []int{3, 1, 6, 10}, func(w io.Writer, level, jobs int) (io.WriteCloser, error) {
			return layerdiff.Compress(w, layerdiff.Zstd, level, jobs)
		}},
	}
}

// Writer compresses into w as the recipe says, with at most jobs goroutines where the encoder can use them. The caller closes
// it; w stays open. Class unsupported for a recipe of another release.
func (r Recipe) Writer(w io.Writer, jobs int) (io.WriteCloser, error) {
	for _, e := range encoders() {
		if e.name != r.Encoder {
			continue
		}
		if e.algo == compression.Gzip {
			w = &headed{w: w, header: r.Header}
		}
		z, err := e.open(w, r.Level, jobs)
		return z, kimg.Wrap("recipe", err)
	}
	return nil, kimg.Errorf(kimg.ErrUnsupported, "recipe", "the encoder %s is not known", kimg.Quote(r.Encoder))
}

// headerSize is the size of the header that every encoder here writes.
const headerSize = 10

// headed puts another header before what a gzip encoder writes.
type headed struct {
	w      io.Writer
	header []byte
	cut    int // bytes of the encoder's own header that are gone
}

func (h *headed) Write(p []byte) (int, error) {
	n := min(len(p), headerSize-h.cut)
	if h.cut += n; n > 0 && h.cut == headerSize {
		if _, err := h.w.Write(h.header); err != nil {
			return 0, err
		}
	}
	m, err := h.w.Write(p[n:])
	return n + m, err
}

// Find finds the recipe of a blob of size bytes. Each encoder runs until it writes another byte than the blob has, the right one
// to the end, on jobs goroutines. Class notfound when none of them has made the blob.
func Find(ctx context.Context, blob io.ReaderAt, size int64, jobs int) (Recipe, error) {
	head := make([]byte, 64<<10)
	n, err := blob.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Recipe{}, err
	}
	head = head[:min(int64(n), size)]
	algo := compression.Detect(head)
	var header []byte
	if algo == compression.Gzip {
		if header = gzipHeader(head); header == nil {
			return Recipe{}, notFound()
		}
	}
	for _, e := range encoders() {
		if e.algo != algo {
			continue
		}
		for _, level := range e.levels {
			r := Recipe{e.name, level, header}
			if made, err := r.makes(ctx, blob, size, jobs); err != nil || made {
				return r, err
			}
		}
	}
	return Recipe{}, notFound()
}

func notFound() error {
	return kimg.Errorf(kimg.ErrNotFound, "recipe", "no known encoder makes this blob")
}

// makes proves the recipe: the blob's own content, compressed, is the blob.
func (r Recipe) makes(ctx context.Context, blob io.ReaderAt, size int64, jobs int) (bool, error) {
	tar, _, err := compression.NewReader(ctx, io.NewSectionReader(blob, 0, size))
	if err != nil {
		return false, err
	}
	defer tar.Close()
	same := &comparer{want: bufio.NewReaderSize(io.NewSectionReader(blob, 0, size), 256<<10)}
	w, err := r.Writer(same, jobs)
	if err != nil {
		return false, err
	}
	_, err = streamio.Copy(w, tar)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	if err == nil {
		_, end := same.want.ReadByte()
		return end == io.EOF, nil
	}
	return false, err
}

var errDiffers = errors.New("another blob")

// comparer fails at the first byte that differs.
type comparer struct {
	want *bufio.Reader
	buf  []byte
}

func (c *comparer) Write(p []byte) (int, error) {
	c.buf = append(c.buf[:0], p...)
	if n, err := io.ReadFull(c.want, c.buf); err != nil || !bytes.Equal(c.buf[:n], p) {
		return 0, errDiffers
	}
	return len(p), nil
}

// gzipHeader is the header of a blob, nil when it does not end within head.
func gzipHeader(head []byte) []byte {
	const crc, extra, name, comment = 2, 4, 8, 16
	if len(head) < headerSize {
		return nil
	}
	flags, n := head[3], headerSize
	if flags&extra != 0 && len(head) >= n+2 {
		n += 2 + int(head[n]) + int(head[n+1])<<8
	}
	for _, text := range []byte{name, comment} {
		if flags&text != 0 && n < len(head) {
			end := bytes.IndexByte(head[n:], 0)
			if end < 0 {
				return nil
			}
			n += end + 1
		}
	}
	if flags&crc != 0 {
		n += 2
	}
	if n > len(head) {
		return nil
	}
	return bytes.Clone(head[:n])
}
