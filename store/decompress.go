package store

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/containers/storage/pkg/archive"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory a zstd stream may ask for, in bytes.
const maxWindow = 128 << 20

// decompress returns the plain form of a stream that is compressed with gzip, zstd, bzip2 or xz, or with nothing, by its
// first bytes. Unlike the library's function it starts no programs it happens to find.
func decompress(r *bufio.Reader) (io.ReadCloser, error) {
	first, err := r.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b, 0x08}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(first, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(first, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(r)), nil
	case bytes.HasPrefix(first, []byte("\xfd7zXZ\x00")):
		return archive.DecompressStream(r)
	}
	return io.NopCloser(r), nil
}
