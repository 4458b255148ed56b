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

// maxJobs bounds the memory: zstd needs 10 to 20 MiB for each job, its slowest levels 50.
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

// Compress returns a writer that compresses into w; see [Compressor].
func Compress(w io.Writer, algo Compression, level, jobs int) (io.WriteCloser, error) {
	c, err := NewCompressor(algo, level, jobs)
	if err != nil {
		return nil, err
	}
	return c.Writer(w)
}

// Compressor compresses several layers side by side, with goroutines and memory that they share as far as the algorithm lets them.
type Compressor struct {
	algo        Compression
	level, jobs int
	zstd        *zstdPool // of zstd
}

// NewCompressor compresses with jobs goroutines (0: one per processor; never more than 16, and one for the levels of zstd from
// 10 on, which need 50 MiB for each). For level see [CheckLevel]. The same input, algorithm and level give the same output for
// any number of jobs and layers; another release of kimg may write other bytes.
func NewCompressor(algo Compression, level, jobs int) (*Compressor, error) {
	if err := CheckLevel(algo, level); err != nil {
		return nil, err
	}
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	c := &Compressor{algo: algo, level: level, jobs: min(jobs, maxJobs)}
	var err error
	switch algo {
	case Zstd:
		c.zstd, err = newZstdPool(level, c.jobs)
	case ZstdChunked:
		err = kimg.Errorf(kimg.ErrUnsupported, string(algo), "is not written here")
	}
	return c, err
}

// Layers is how many layers should be written at the same time: the jobs, but two when each layer keeps them all busy and
// takes memory.
func (c *Compressor) Layers() int {
	if c.algo == NoCompression || c.algo == "none" {
		return c.jobs
	}
	return min(c.jobs, 2)
}

// Writer returns a writer that compresses one layer into w. The caller closes it, also after an error: that ends its goroutines
// and writes the tail; w stays open.
func (c *Compressor) Writer(w io.Writer) (io.WriteCloser, error) {
	switch c.algo {
	case Gzip:
		return compressGzip(w, c.level, c.jobs)
	case Zstd:
		return c.zstd.writer(w), nil
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
