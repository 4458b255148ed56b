package layerdiff

import (
	"io"
	"runtime"
	"sync/atomic"

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

	// ZstdChunked is zstd with a table of contents, which lets a reader fetch single files. [Compress] does not write it.
	ZstdChunked Compression = "zstd:chunked"
)

// Stored is the level of gzip that compresses nothing, which its users know as 0.
const Stored = -1

// blockSize is what one goroutine compresses with gzip at a time. It decides the bytes of the output, so it is fixed: the
// number of jobs must not.
const blockSize = 1 << 20

// maxJobs bounds the memory: the slowest level of zstd needs 50 MiB for each job.
const maxJobs = 16

// CheckLevel refuses an algorithm that does not exist and a level it does not have: class invalid. The levels of gzip are
// [Stored] and 1 to 9, those of zstd 1 to 22; 0 is the algorithm's default. Without compression there are none.
func CheckLevel(algo Compression, level int) error {
	lowest, highest := 0, 0
	switch algo {
	case NoCompression, "none":
	case Gzip:
		lowest, highest = Stored, 9
	case Zstd, ZstdChunked:
		highest = 22
	default:
		return kimg.Errorf(kimg.ErrInvalid, kimg.Quote(string(algo)), "unknown compression")
	}
	if level < lowest || level > highest {
		if highest == 0 {
			return kimg.Errorf(kimg.ErrInvalid, "none", "there is no level without compression")
		}
		return kimg.Errorf(kimg.ErrInvalid, string(algo), "level %d is outside 1 to %d", level, highest)
	}
	return nil
}

// Compress returns a writer that compresses into w with jobs goroutines (0: one per processor; never more than 16). For
// level see [CheckLevel]. The same input, algorithm and level give the same output for any number of jobs; another release of
// kimg may write other bytes. The caller closes the writer, also after an error: that ends its goroutines and writes the
// tail; w stays open.
func Compress(w io.Writer, algo Compression, level, jobs int) (io.WriteCloser, error) {
	if err := CheckLevel(algo, level); err != nil {
		return nil, err
	}
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	jobs = min(jobs, maxJobs)
	switch algo {
	case Gzip:
		return compressGzip(w, level, jobs)
	case Zstd:
		return compressZstd(w, level, jobs)
	case ZstdChunked:
		return nil, kimg.Errorf(kimg.ErrUnsupported, string(algo), "is not written here")
	}
	return keepOpen{w}, nil
}

func compressGzip(w io.Writer, level, jobs int) (io.WriteCloser, error) {
	switch level {
	case 0:
		level = pgzip.DefaultCompression
	case Stored:
		level = pgzip.NoCompression
	}
	g := &gzipWriter{w: w}
	var err error
	if g.z, err = pgzip.NewWriterLevel((*gzipOut)(g), level); err != nil {
		return nil, kimg.Wrap("gzip", err)
	}
	if err := g.z.SetConcurrency(blockSize, jobs); err != nil {
		return nil, kimg.Wrap("gzip", err)
	}
	return g, nil
}

// gzipWriter keeps errors of what it writes to from the library, which would leave goroutines behind.
type gzipWriter struct {
	z      *pgzip.Writer
	w      io.Writer
	failed atomic.Pointer[error]
}

func (g *gzipWriter) Write(p []byte) (int, error) {
	if err := g.failed.Load(); err != nil {
		return 0, *err
	}
	return g.z.Write(p)
}

func (g *gzipWriter) Close() error {
	err := g.z.Close()
	if failed := g.failed.Load(); failed != nil {
		return *failed
	}
	return err
}

type gzipOut gzipWriter

func (s *gzipOut) Write(p []byte) (int, error) {
	if s.failed.Load() == nil {
		if _, err := s.w.Write(p); err != nil {
			s.failed.Store(&err)
		}
	}
	return len(p), nil
}

// keepOpen is a writer whose Close does nothing.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
