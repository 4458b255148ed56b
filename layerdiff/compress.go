package layerdiff

import (
	"io"
	"runtime"

	"github.com/klauspost/pgzip"

	"github.com/kimg/kimg"
)

// Compression is the name of an algorithm.
type Compression string

// The algorithms. The zero value compresses nothing.
const (
	NoCompression Compression = ""
	Gzip          Compression = "gzip"
	Zstd          Compression = "zstd"
)

// blockSize is what one goroutine compresses at a time. It decides the bytes of the output, so it is fixed: the number
// of jobs must not.
const blockSize = 1 << 20

// Compress returns a writer that compresses into w with jobs goroutines (0: one per processor). Level 0 is the
// algorithm's default, else 1 to 9. The same input, algorithm and level give the same output for any number of jobs. The
// caller closes the writer, also after an error: that ends its goroutines and writes the tail; w stays open.
func Compress(w io.Writer, algo Compression, level, jobs int) (io.WriteCloser, error) {
	switch algo {
	case NoCompression, "none":
		return keepOpen{w}, nil
	case Gzip:
		return compressGzip(w, level, jobs)
	case Zstd:
		return nil, kimg.Errorf(kimg.ErrUnsupported, "zstd", "compression with this algorithm is not available")
	}
	return nil, kimg.Errorf(kimg.ErrUnsupported, kimg.Quote(string(algo)), "unknown compression")
}

func compressGzip(w io.Writer, level, jobs int) (io.WriteCloser, error) {
	if level < 0 || level > 9 {
		return nil, kimg.Errorf(kimg.ErrInvalid, "gzip", "level %d is outside 1 to 9", level)
	}
	if level == 0 {
		level = pgzip.DefaultCompression
	}
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, kimg.Wrap("gzip", err)
	}
	if err := z.SetConcurrency(blockSize, jobs); err != nil {
		return nil, kimg.Wrap("gzip", err)
	}
	return z, nil
}

// keepOpen is a writer whose Close does nothing.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
