package tarsplit

import (
	"hash/crc64"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestCRCEqualsStandardLibrary(t *testing.T) {
	table := crc64.MakeTable(crc64.ISO)
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for n := range 1200 { // every small length, and both sides of every boundary of the folding
		if got, want := Update(0, data[:n]), crc64.Checksum(data[:n], table); got != want {
			t.Fatalf("%d bytes: %016x, want %016x", n, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "data")
		cut := rapid.IntRange(0, len(p)).Draw(t, "cut")
		seed := rapid.Uint64().Draw(t, "seed")
		if got, want := Update(Update(seed, p[:cut]), p[cut:]), crc64.Update(seed, table, p); got != want {
			t.Fatalf("%016x, want %016x", got, want)
		}
	})
}

func BenchmarkCRC(b *testing.B) {
	data := make([]byte, 256<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Update(0, data)
	}
}
