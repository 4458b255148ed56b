package layerdiff_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/layerdiff"
)

// sample is text in which there is something to compress, and stretches in which there is not.
func sample(size int) []byte {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range data {
		if i>>19&3 == 3 {
			data[i] = byte(r.Uint32())
		} else {
			data[i] = "0123456789abcdef"[r.IntN(16)]
		}
	}
	return data
}

// compress writes data in pieces of any size.
func compress(t *testing.T, data []byte, algo layerdiff.Compression, level, jobs int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := layerdiff.Compress(&out, algo, level, jobs)
	must(t, err)
	r := rand.New(rand.NewPCG(2, uint64(jobs)))
	for p := data; len(p) > 0; {
		n := min(len(p), 1+r.IntN(200000))
		_, err := w.Write(p[:n])
		must(t, err)
		p = p[n:]
	}
	must(t, w.Close())
	return out.Bytes()
}

// The output is the same whatever the number of jobs, and gives the data back.
func TestCompress(t *testing.T) {
	data := sample(9<<20 + 17)
	for _, c := range []struct {
		algo   layerdiff.Compression
		levels []int
		back   func(io.Reader) (io.Reader, error)
	}{
		{layerdiff.Gzip, []int{layerdiff.Stored, 0, 1, 6, 9}, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{layerdiff.Zstd, []int{0, 1, 3, 7, 22}, func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
	} {
		for _, size := range []int{0, 1, 4 << 20, 4<<20 + 1, len(data)} {
			for _, level := range c.levels {
				if size != 4<<20+1 && level != 0 {
					continue
				}
				first := compress(t, data[:size], c.algo, level, 1)
				for _, jobs := range []int{3} {
					if !bytes.Equal(compress(t, data[:size], c.algo, level, jobs), first) {
						t.Errorf("%s %d of %d bytes: %d jobs give other bytes", c.algo, level, size, jobs)
					}
				}
				z, err := c.back(bytes.NewReader(first))
				must(t, err)
				back, err := io.ReadAll(z)
				if err != nil || !bytes.Equal(back, data[:size]) {
					t.Errorf("%s %d of %d bytes does not give the data back: %v", c.algo, level, size, err)
				}
			}
		}
	}
	var out bytes.Buffer
	w, err := layerdiff.Compress(&out, layerdiff.NoCompression, 0, 0)
	must(t, err)
	_, err = w.Write(data)
	must(t, err, w.Close())
	if !bytes.Equal(out.Bytes(), data) {
		t.Error("no compression changes the data")
	}
}

// What the command makes of it is what went in.
func TestZstdCommand(t *testing.T) {
	testenv.Need(t, "zstd")
	data := sample(9 << 20)
	cmd := exec.CommandContext(t.Context(), "zstd", "-dc")
	cmd.Stdin = bytes.NewReader(compress(t, data, layerdiff.Zstd, 0, 2))
	back, err := cmd.Output()
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("zstd -dc: %d bytes, %v", len(back), err)
	}
}

// full takes some bytes and then fails.
type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// A destination that fails is noticed, and nobody waits for ever.
func TestCompressIntoFull(t *testing.T) {
	data := sample(2 << 20)
	for _, algo := range []layerdiff.Compression{layerdiff.Gzip, layerdiff.Zstd} {
		for _, room := range []int{0, 5 << 20} {
			w, err := layerdiff.Compress(&full{room}, algo, 0, 2)
			must(t, err)
			var failed error
			for range 32 {
				if _, failed = w.Write(data); failed != nil {
					break
				}
			}
			if err := w.Close(); failed == nil && err == nil {
				t.Errorf("%s: %d bytes of room were enough", algo, room)
			}
		}
	}
}

func TestCompressRefuses(t *testing.T) {
	for _, c := range []struct {
		algo  layerdiff.Compression
		level int
		class kimg.Class
	}{
		{"lzma", 0, kimg.ErrInvalid}, {layerdiff.Gzip, 10, kimg.ErrInvalid}, {layerdiff.Gzip, -2, kimg.ErrInvalid},
		{layerdiff.Zstd, 23, kimg.ErrInvalid}, {layerdiff.Zstd, -1, kimg.ErrInvalid}, {layerdiff.NoCompression, 1, kimg.ErrInvalid},
		{layerdiff.ZstdChunked, 0, kimg.ErrUnsupported},
	} {
		if _, err := layerdiff.Compress(io.Discard, c.algo, c.level, 1); !errors.Is(err, c.class) {
			t.Errorf("%s %d: %v", c.algo, c.level, err)
		}
	}
}
