package compression

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/kimg/kimg"
)

// xzFile compresses data as one stream of blocks of at most block bytes.
func xzFile(t *testing.T, data []byte, block int64, check byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 20, BlockSize: block, CheckSum: check}.NewWriter(&b)
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

// mixed is data of which some compresses and some does not.
func mixed(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, size)
	for i := range data {
		if i/50000%2 == 0 {
			data[i] = byte(r.Uint32())
		}
	}
	return data
}

// greedy makes the n-th block header of a file ask for 4 GiB. A header of this writer has 12 bytes.
func greedy(t *testing.T, file []byte, n int) []byte {
	t.Helper()
	file = bytes.Clone(file)
	for at := 12; at < len(file)-12; at += 4 {
		head := file[at : at+12]
		if head[0] != 2 || head[2] != 0x21 || head[3] != 1 || crc32.ChecksumIEEE(head[:8]) != binary.LittleEndian.Uint32(head[8:]) {
			continue
		}
		if n--; n < 0 {
			head[4] = 40
			binary.LittleEndian.PutUint32(head[8:], crc32.ChecksumIEEE(head[:8]))
			return file
		}
	}
	t.Fatal("the file has fewer blocks")
	return nil
}

// Every form of file comes out as it went in, and no block of any stream gets more memory than the limit.
func TestXzMemory(t *testing.T) {
	data := mixed(400_000)
	one, blocks := xzFile(t, data, 0, xz.CRC64), xzFile(t, data, 70_000, xz.SHA256)
	crc := xzFile(t, data, 100_000, xz.CRC32)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		file  []byte
		plain int // how many times the data; 0: too much memory
	}{
		"one block": {one, 1}, "blocks": {blocks, 1}, "other check": {crc, 1}, "empty": {xzFile(t, nil, 0, xz.CRC64), 100},
		"streams": {join(one, blocks, crc), 3}, "padded streams": {join(one, make([]byte, 8), blocks), 2},
		"greedy": {greedy(t, one, 0), 0}, "second block": {greedy(t, blocks, 1), 0}, "last block": {greedy(t, blocks, 5), 0},
		"second stream": {join(one, greedy(t, crc, 0)), 0}, "behind padding": {join(crc, make([]byte, 4), greedy(t, blocks, 3)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := read(c.file)
			switch {
			case c.plain == 0 && !errors.Is(err, kimg.ErrLimit):
				t.Errorf("got %v", err)
			case c.plain == 100 && (err != nil || len(got) > 0):
				t.Errorf("%d bytes, %v", len(got), err)
			case c.plain > 0 && c.plain < 100 && (err != nil || !bytes.Equal(got, bytes.Repeat(data, c.plain))):
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// FuzzXz: what the guard passes on is the file, whatever it is.
func FuzzXz(f *testing.F) {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := w.Write([]byte("some text, some text")); err != nil || w.Close() != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(append(bytes.Clone(b.Bytes()), b.Bytes()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := io.ReadAll(guardXZ(bufio.NewReader(bytes.NewReader(data))))
		if err != nil && !errors.Is(err, kimg.ErrLimit) {
			t.Fatal(err)
		}
		if err == nil && !bytes.Equal(got, data) || !bytes.HasPrefix(data, got) {
			t.Fatalf("%d of %d bytes", len(got), len(data))
		}
	})
}
