package compression

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/kimg/kimg"
)

// bzip2Hello is "hello\n" as bzip2 writes it; no Go package does.
const bzip2Hello = "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2"

func compressed(t *testing.T, a Algorithm, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch a {
	case Gzip:
		w = gzip.NewWriter(&b)
	case Zstd:
		w, err = zstd.NewWriter(&b)
	case Xz:
		w, err = xz.NewWriter(&b)
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(data []byte) ([]byte, Algorithm, error) {
	r, a, err := NewReader(context.Background(), bytes.NewReader(data))
	if err != nil {
		return nil, a, err
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	return out, a, err
}

func TestReads(t *testing.T) {
	for _, a := range []Algorithm{None, Gzip, Zstd, Xz} {
		for _, size := range []int{0, 1, 100, 700_000} {
			want := bytes.Repeat([]byte("some text "), size/10)
			got, found, err := read(compressed(t, a, want))
			if err != nil || found != a || !bytes.Equal(got, want) {
				t.Errorf("%s of %d bytes: %s, %d bytes, %v", a, size, found, len(got), err)
			}
		}
	}
	// All members of a gzip stream count.
	two := append(compressed(t, Gzip, []byte("one ")), compressed(t, Gzip, []byte("two"))...)
	if got, _, err := read(two); err != nil || string(got) != "one two" {
		t.Errorf("two members: %q, %v", got, err)
	}
}

// Whatever byte is missing, wrong or too much, the stream is refused or gives the same content.
func TestRefusesDamage(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 20)
	for _, a := range []Algorithm{Gzip, Zstd, Xz} {
		good := compressed(t, a, want)
		cases := map[string][]byte{"cut": good[:len(good)-1], "cut early": good[:len(good)/2], "extended": append(bytes.Clone(good), 'x')}
		if a == Gzip {
			cases["zeros behind"] = append(bytes.Clone(good), 0, 0, 0, 0)
		}
		for i := 6; i < len(good); i++ {
			bad := bytes.Clone(good)
			bad[i] ^= 0x10
			cases["flipped "+hex.EncodeToString([]byte{byte(i >> 8), byte(i)})] = bad
		}
		for name, bad := range cases {
			got, found, err := read(bad)
			if err == nil && found == a && !bytes.Equal(got, want) {
				t.Errorf("%s %s: accepted with other content", a, name)
			}
			if err != nil && !errors.Is(err, kimg.ErrIntegrity) && !errors.Is(err, kimg.ErrLimit) {
				t.Errorf("%s %s: class %s: %v", a, name, kimg.ClassOf(err), err)
			}
			if err == nil && (name[:3] == "cut" || name[:3] == "ext" || name[:3] == "zer") {
				t.Errorf("%s %s: accepted", a, name)
			}
		}
	}
}

func TestBzip2(t *testing.T) {
	data, err := hex.DecodeString(bzip2Hello)
	if err != nil {
		t.Fatal(err)
	}
	if got, a, err := read(data); err != nil || a != Bzip2 || string(got) != "hello\n" {
		t.Errorf("%q, %s, %v", got, a, err)
	}
	if _, _, err := read(append(data, 'x', 'x', 'x', 'x')); !errors.Is(err, kimg.ErrIntegrity) {
		t.Errorf("trailing garbage: %v", err)
	}
	if _, _, err := read(data[:20]); !errors.Is(err, kimg.ErrIntegrity) {
		t.Errorf("cut: %v", err)
	}
}

var errBroken = errors.New("broken")

type broken struct{ n int }

func (b *broken) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, kimg.Errorf(kimg.ErrIO, "", "%w", errBroken)
	}
	b.n--
	return copy(p, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), nil
}

// What goes wrong below is not the stream's fault.
func TestPassesErrorsOn(t *testing.T) {
	for n := range 3 {
		r, _, err := NewReader(t.Context(), &broken{n})
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, kimg.ErrIO) || !errors.Is(err, errBroken) {
			t.Errorf("%d: %v", n, err)
		}
	}
}
