package streamio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

func TestMeter(t *testing.T) {
	var out bytes.Buffer
	m := NewMeter(&out)
	io.WriteString(m, "hello ")
	io.WriteString(m, "world")
	if m.Size() != 11 || m.Digest() != digest.FromString("hello world") || out.String() != "hello world" {
		t.Errorf("measured %d %s, passed on %q", m.Size(), m.Digest(), out.String())
	}
}

func TestVerifier(t *testing.T) {
	const text = "some content"
	good := digest.FromString(text)
	for name, c := range map[string]struct {
		text string
		size int64
		want error
	}{
		"good":         {text, int64(len(text)), nil},
		"unknown size": {text, -1, nil},
		"empty":        {"", int64(len(text)), kimg.ErrIntegrity},
		"short":        {text[:5], int64(len(text)), kimg.ErrIntegrity},
		"long":         {text + "x", int64(len(text)), kimg.ErrIntegrity},
		"flipped":      {"Some content", int64(len(text)), kimg.ErrIntegrity},
		"flipped, -1":  {"Some content", -1, kimg.ErrIntegrity},
	} {
		for way, wrap := range map[string]func(io.Reader) io.Reader{
			"plain":    func(r io.Reader) io.Reader { return r },
			"one byte": iotest.OneByteReader,
			"data+EOF": iotest.DataErrReader,
		} {
			v, err := NewVerifier(wrap(strings.NewReader(c.text)), c.size, good)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(v)
			if !errors.Is(err, c.want) || c.want == nil && string(got) != text {
				t.Errorf("%s, %s: %q, %v; want %v", name, way, got, err, c.want)
			}
			if _, again := v.Read(make([]byte, 1)); err != nil && !errors.Is(again, c.want) {
				t.Errorf("%s, %s: the error is not sticky: %v", name, way, again)
			}
		}
	}
}

func TestVerifierStopsAtTheDeclaredSize(t *testing.T) {
	endless := &countingReader{}
	v, err := NewVerifier(endless, 1000, digest.FromString(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, v); !errors.Is(err, kimg.ErrIntegrity) {
		t.Errorf("an endless stream: %v", err)
	}
	if endless.n > 1001 {
		t.Errorf("read %d bytes of a blob of 1000", endless.n)
	}
}

func TestVerifierRefusesWhatItCannotVerify(t *testing.T) {
	for in, want := range map[digest.Digest]error{"": kimg.ErrInvalid, "sha256:zz": kimg.ErrInvalid, "md5:00": kimg.ErrUnsupported} {
		if _, err := NewVerifier(strings.NewReader(""), 0, in); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
}

func TestWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := WithContext(ctx, &countingReader{})
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 1)); kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Errorf("after cancel: %v", err)
	}
}

type countingReader struct{ n int }

func (r *countingReader) Read(p []byte) (int, error) { r.n += len(p); return len(p), nil }

func TestCheck(t *testing.T) {
	if err := Check([]byte("x"), digest.FromString("x")); err != nil {
		t.Error(err)
	}
	for d, want := range map[digest.Digest]kimg.Class{digest.FromString("y"): kimg.ErrIntegrity, "x": kimg.ErrInvalid, "": kimg.ErrInvalid} {
		if err := Check([]byte("x"), d); kimg.ClassOf(err) != want {
			t.Errorf("%q: %v", d, err)
		}
	}
}
