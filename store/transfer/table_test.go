package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// packed compresses text and then n times more, by which a few bytes become many.
func packed(t *testing.T, text, more string, n int, end string) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(z.EncodeAll([]byte(text), nil), bytes.Repeat(z.EncodeAll([]byte(more), nil), n)...), z.EncodeAll([]byte(end), nil)...)
}

// TestTableIsBounded: what a table names that has no content takes no memory, and what has is no more than a layer may have.
func TestTableIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		entry string
		n     int // thousands
		want  int // entries; -1: refused
	}{
		"files":   {`{"type":"reg","name":"a","size":1},`, 1, 1000},
		"nothing": {`{},`, 1500, 0},
		"chunks":  {`{"type":"chunk"},`, 1100, -1},
	} {
		toc := packed(t, `{"version":1,"entries":[`, strings.Repeat(c.entry, 1000), c.n, `{}],"other":[{}],"tarSplitDigest":"`+digest.FromString("record").String()+`"}`)
		size := len(toc) + len("record")
		l := Layer{Size: 1 << 30, TOC: digest.FromBytes(toc), Annotations: map[string]string{
			tocPosition: fmt.Sprintf("0:%d:1:1", len(toc)), recordPosition: fmt.Sprintf("%d:%d:1", len(toc), size-len(toc)),
		}}
		l.Sections = func(context.Context, []Section) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(toc), strings.NewReader("record"))), nil
		}
		table, record, err := readTable(t.Context(), l, NewMeter(Event{}, nil))
		if (err != nil) != (c.want < 0) || err == nil && (len(table) != c.want || string(record) != "record") {
			t.Errorf("%s: %d entries, record %q, %v", name, len(table), record, err)
		}
	}
}

// TestRecordIsBounded: a record of a few bytes cannot make one entry that fills the memory.
func TestRecordIsBounded(t *testing.T) {
	p := parts{record: packed(t, `{"type":2,"payload":"`, strings.Repeat("A", 1<<20), 256, `"}`)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := p.write(t.Context(), io.Discard)
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; err == nil || took > 100 {
		t.Errorf("%d MiB of memory for %d bytes: %v", took, len(p.record), err)
	}
	p.record = packed(t, "", `{"type":2,"payload":"`+strings.Repeat("A", 1<<20)+`"}`, 20, "")
	var n bytes.Buffer
	if err := p.write(t.Context(), &n); err != nil || n.Len() != 20*(1<<20)/4*3 {
		t.Errorf("%d bytes, %v", n.Len(), err)
	}
}
