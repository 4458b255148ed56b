package recipe_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/recipe"
)

// sample is what layers are like: text that repeats itself, and noise; more than a block of any encoder.
func sample(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 0, size+64)
	for len(data) < size {
		if r.IntN(8) == 0 {
			for range 64 {
				data = append(data, byte(r.Uint32()))
			}
		}
		data = fmt.Appendf(data, "usr/share/doc/%d/word%d\n", r.IntN(1<<30), r.IntN(1<<20))
	}
	return data[:size]
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// compressors are the encoders as their users call them.
var compressors = map[string]func(w io.Writer) io.WriteCloser{
	"go 6":      func(w io.Writer) io.WriteCloser { return stdgzip.NewWriter(w) },
	"go 9":      func(w io.Writer) io.WriteCloser { return must(stdgzip.NewWriterLevel(w, 9)) },
	"go 1":      func(w io.Writer) io.WriteCloser { return must(stdgzip.NewWriterLevel(w, 1)) },
	"pgzip":     func(w io.Writer) io.WriteCloser { return pgzip.NewWriter(w) },
	"klauspost": func(w io.Writer) io.WriteCloser { return must(gzip.NewWriterLevel(w, 3)) },
	"named": func(w io.Writer) io.WriteCloser {
		z := must(stdgzip.NewWriterLevel(w, 5))
		z.Name, z.Comment, z.Extra, z.ModTime, z.OS = "layer.tar", "c", []byte{1, 2, 3}, time.Unix(1700000000, 0), 3
		return z
	},
	"zstd": func(w io.Writer) io.WriteCloser { return must(zstd.NewWriter(w)) },
	"zstd best": func(w io.Writer) io.WriteCloser {
		return must(zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression)))
	},
	"kimg zstd": func(w io.Writer) io.WriteCloser { return must(layerdiff.Compress(w, layerdiff.Zstd, 0, 2)) },
	"kimg gzip": func(w io.Writer) io.WriteCloser { return must(layerdiff.Compress(w, layerdiff.Gzip, 0, 2)) },
}

func compress(open func(io.Writer) io.WriteCloser, data []byte) []byte {
	var b bytes.Buffer
	w := open(&b)
	must(w.Write(data))
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestFind: what a known encoder made is made again, byte for byte, by any number of goroutines.
func TestFind(t *testing.T) {
	for name, open := range compressors {
		large := 5 << 18 // more than a block of pgzip
		if name == "kimg zstd" {
			large = 9 << 19 // more than a frame
		}
		for _, size := range []int{0, 1000, large} {
			data := sample(size)
			blob := compress(open, data)
			r, err := recipe.Find(t.Context(), bytes.NewReader(blob), int64(len(blob)), 2)
			if err != nil {
				t.Errorf("%s, %d bytes: %v", name, size, err)
				continue
			}
			for jobs := 1; jobs < 3; jobs++ {
				got := compress(func(w io.Writer) io.WriteCloser { return must(r.Writer(w, jobs)) }, data)
				if !bytes.Equal(got, blob) {
					t.Errorf("%s, %d bytes: %+v makes another blob with %d jobs", name, size, r, jobs)
				}
			}
		}
	}
}

// TestFindNothing: a blob that no encoder makes has no recipe, whatever is wrong with it.
func TestFindNothing(t *testing.T) {
	good := compress(compressors["go 6"], sample(1<<19))
	two := append(bytes.Clone(good), good...)
	late := bytes.Clone(good)
	late[len(late)-5] ^= 1 // the checksum
	for name, c := range map[string]struct {
		blob  []byte
		class kimg.Class
	}{
		"a tar": {sample(1000), kimg.ErrNotFound}, "nothing": {nil, kimg.ErrNotFound}, "two members": {two, kimg.ErrNotFound},
		"header only": {[]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0, 'x'}, kimg.ErrNotFound},
		"another":     {compress(func(w io.Writer) io.WriteCloser { return must(stdgzip.NewWriterLevel(w, stdgzip.HuffmanOnly)) }, sample(1<<18)), kimg.ErrNotFound},
		"cut":         {good[:len(good)-9], kimg.ErrIntegrity}, "flipped": {late, kimg.ErrIntegrity},
	} {
		if r, err := recipe.Find(t.Context(), bytes.NewReader(c.blob), int64(len(c.blob)), 2); kimg.ClassOf(err) != c.class {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := recipe.Find(ctx, bytes.NewReader(good), int64(len(good)), 1); err == nil {
		t.Error("not cancelled")
	}
	if _, err := (recipe.Recipe{Encoder: "x"}).Writer(io.Discard, 1); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
	if _, err := (recipe.Recipe{Encoder: "go", Level: 77}).Writer(io.Discard, 1); err == nil {
		t.Error("level 77")
	}
}
