package layerdiff_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
)

func TestCompress(t *testing.T) {
	data := make([]byte, 3<<20+17)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range data {
		data[i] = "0123456789abcdef"[r.IntN(16)]
	}
	for _, level := range []int{0, 1, 6, 9} {
		var first []byte
		for _, jobs := range []int{1, 2, 7, 0} {
			var out bytes.Buffer
			w, err := layerdiff.Compress(&out, layerdiff.Gzip, level, jobs)
			must(t, err)
			for p := data; len(p) > 0; { // written in pieces of any size
				n := min(len(p), 1+r.IntN(200000))
				_, err := w.Write(p[:n])
				must(t, err)
				p = p[n:]
			}
			must(t, w.Close())
			if first == nil {
				first = out.Bytes()
				z, err := gzip.NewReader(&out)
				must(t, err)
				back, err := io.ReadAll(z)
				if err != nil || !bytes.Equal(back, data) {
					t.Fatalf("level %d does not give the data back: %v", level, err)
				}
			} else if !bytes.Equal(out.Bytes(), first) {
				t.Errorf("level %d: %d jobs give other bytes", level, jobs)
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

func TestCompressRefuses(t *testing.T) {
	for _, c := range []struct {
		algo  layerdiff.Compression
		level int
		class kimg.Class
	}{{layerdiff.Zstd, 0, kimg.ErrUnsupported}, {"lzma", 0, kimg.ErrUnsupported}, {layerdiff.Gzip, 10, kimg.ErrInvalid}, {layerdiff.Gzip, -1, kimg.ErrInvalid}} {
		if _, err := layerdiff.Compress(io.Discard, c.algo, c.level, 1); !errors.Is(err, c.class) {
			t.Errorf("%s %d: %v", c.algo, c.level, err)
		}
	}
}
