package chunked

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// room takes so many bytes.
type room int

var errFull = errors.New("full")

func (r *room) Write(p []byte) (int, error) {
	if *r -= room(len(p)); *r < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// Wherever the destination fails, or the tar ends too soon, that is what is said, and no goroutine stays.
func TestNothingStays(t *testing.T) {
	var layer, packed bytes.Buffer
	w := tar.NewWriter(&layer)
	data := make([]byte, 200<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	for _, name := range []string{"a", "b"} {
		err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644})
		if _, werr := w.Write(data); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	pack := func(to io.Writer, tar []byte) (map[string]string, error) {
		notes := map[string]string{}
		z, err := New(to, 0, notes)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(z, bytes.NewReader(tar))
		if cerr := z.Close(); err == nil {
			err = cerr
		}
		return notes, err
	}
	if notes, err := pack(&packed, layer.Bytes()); err != nil || len(notes) == 0 {
		t.Fatalf("%v, %v", notes, err)
	}
	before := runtime.NumGoroutine()
	for n := range 8 {
		r := room(packed.Len() * n / 8)
		if _, err := pack(&r, layer.Bytes()); !errors.Is(err, errFull) {
			t.Errorf("after %d eighths: %v", n, err)
		}
		if _, err := pack(io.Discard, layer.Bytes()[:layer.Len()*n/8]); n == 3 && err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Error(err)
		}
	}
	for range 3000 { // a busy machine needs a while
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, and %d before", runtime.NumGoroutine(), before)
}
