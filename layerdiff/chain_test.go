package layerdiff_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
)

// closing is a buffer that knows how often it was closed.
type closing struct {
	bytes.Buffer
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

// text is a source that writes some text, when it is let.
func text(s string, before func(context.Context) error) layerdiff.Source {
	return layerdiff.Source{DiffID: digest.FromString(s), Write: func(ctx context.Context, w io.Writer) (layerdiff.Blob, error) {
		if err := before(ctx); err != nil {
			return layerdiff.Blob{}, err
		}
		_, err := io.WriteString(w, s)
		return layerdiff.Blob{DiffID: digest.FromString(s), Size: int64(len(s))}, err
	}}
}

// E4, E5, E9: layers are written side by side, as many as there are jobs, equal ones once, and come out base first.
func TestWriteAll(t *testing.T) {
	for _, jobs := range []int{1, 2, 5} {
		var now, most, opened atomic.Int32
		meet := func(context.Context) error {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			for start := time.Now(); most.Load() < int32(jobs) && time.Since(start) < time.Minute; {
				time.Sleep(time.Millisecond)
			}
			now.Add(-1)
			return nil
		}
		var chain []layerdiff.Source
		for i := range 12 {
			chain = append(chain, text(fmt.Sprint("layer ", i%6), meet))
		}
		unknown := text("not known before", meet)
		unknown.DiffID = ""
		chain = append(chain, unknown, unknown)
		out := make([]closing, len(chain))
		blobs, err := layerdiff.WriteAll(t.Context(), chain, func(_ context.Context, i int) (io.WriteCloser, error) {
			opened.Add(1)
			if i == 3 {
				return nil, nil
			}
			return &out[i], nil
		}, jobs)
		if err != nil || opened.Load() != 8 || most.Load() != int32(jobs) {
			t.Errorf("%d jobs: %v, %d opened, %d at once", jobs, err, opened.Load(), most.Load())
		}
		for i, b := range blobs {
			want := fmt.Sprint("layer ", i%6)
			if i >= 12 {
				want = "not known before"
			}
			written := &out[i]
			if i < 12 {
				written = &out[i%6]
			}
			if i%6 == 3 && i < 12 {
				if b.DiffID != "" || written.closed != 0 {
					t.Errorf("layer %d, which nobody wants, is %v", i, b)
				}
				continue
			}
			if b.DiffID != digest.FromString(want) || b.Size != int64(len(want)) || written.String() != want || written.closed != 1 {
				t.Errorf("%d jobs: layer %d is %v, %q, closed %d times", jobs, i, b, written, written.closed)
			}
		}
	}
	if blobs, err := layerdiff.WriteAll(t.Context(), nil, nil, 0); err != nil || len(blobs) != 0 {
		t.Error(blobs, err)
	}
}

// E17, E18: the first error ends the others, and says which layer it was, with its digest; a cancelled context is no failure of a layer.
func TestWriteAllFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	wait := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	begun := make(chan struct{})
	first := text("a", func(ctx context.Context) error { close(begun); return wait(ctx) })
	broken := text("broken", func(context.Context) error { <-begun; return kimg.Errorf(kimg.ErrNoSpace, "file", "no room") })
	out := make([]closing, 4)
	open := func(_ context.Context, i int) (io.WriteCloser, error) { return &out[i], nil }
	blobs, err := layerdiff.WriteAll(ctx, []layerdiff.Source{first, broken, text("c", wait), text("d", wait)}, open, 2)
	if kimg.ClassOf(err) != kimg.ErrNoSpace || !strings.Contains(fmt.Sprint(err), "layer 2 of 4 ("+broken.DiffID.String()+"): file: no room") || blobs != nil {
		t.Errorf("%v, %v", blobs, err)
	}
	for i, want := range []int{1, 1, 0, 0} {
		if out[i].closed != want {
			t.Errorf("layer %d was closed %d times", i, out[i].closed)
		}
	}
	refuse := func(context.Context, int) (io.WriteCloser, error) { return nil, errors.New("not opened") }
	broken.DiffID = ""
	if _, err := layerdiff.WriteAll(ctx, []layerdiff.Source{broken}, refuse, 0); fmt.Sprint(err) != "layer 1 of 1: not opened" {
		t.Error(err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := layerdiff.WriteAll(ctx, []layerdiff.Source{text("a", wait), text("b", wait)}, open, 2); kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Error(err)
	}
}

// The slowest levels of zstd, and layers side by side, stay within a memory that does not grow with the processors.
func TestCompressorMemory(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 8<<16)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := layerdiff.NewCompressor(layerdiff.Zstd, 22, 16)
	must(t, err)
	chain := make([]layerdiff.Source, 3)
	for i := range chain {
		chain[i].Write = func(_ context.Context, w io.Writer) (layerdiff.Blob, error) {
			_, err := w.Write(data)
			return layerdiff.Blob{}, err
		}
	}
	out := make([]bytes.Buffer, len(chain))
	_, err = layerdiff.WriteAll(t.Context(), chain, func(_ context.Context, i int) (io.WriteCloser, error) { return c.Writer(&out[i]) }, c.Layers())
	must(t, err)
	runtime.ReadMemStats(&after)
	if all := after.TotalAlloc - before.TotalAlloc; all > 80<<20 {
		t.Errorf("%d MiB", all>>20)
	}
	alone := compress(t, data, layerdiff.Zstd, 22, 1)
	for i := range out {
		if !bytes.Equal(out[i].Bytes(), alone) {
			t.Error("other bytes than alone")
		}
	}
}
