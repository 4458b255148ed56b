package layerdiff

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"
)

// tarSplit writes the record from which tar-split puts the tar stream together again: the raw bytes of headers and
// padding, and for each file its name, size and checksum. It is the JSON that tar-split itself writes for the same tar,
// byte for byte. A nil tarSplit writes nothing. Write errors show in close.
type tarSplit struct {
	w        *bufio.Writer
	line     []byte
	raw      []byte // padding of the last file, then the header of the next
	position int64
}

func newTarSplit(w io.Writer) *tarSplit {
	if w == nil {
		return nil
	}
	return &tarSplit{w: bufio.NewWriterSize(w, 128<<10)}
}

// member records one tar member: the bytes of its header, its name in two parts, and its content's size and checksum.
func (t *tarSplit) member(header []byte, dir, base string, size int64, crc uint64) {
	if t == nil {
		return
	}
	t.segment(header)
	line := append(t.line[:0], `{"type":1,`...)
	line = appendName(line, dir, base)
	if size > 0 {
		line = append(line, `,"size":`...)
		line = strconv.AppendInt(line, size, 10)
		line = append(line, `,"payload":"`...)
		var sum [8]byte
		binary.BigEndian.PutUint64(sum[:], crc)
		line = base64.StdEncoding.AppendEncode(line, sum[:])
		line = append(line, '"')
	} else {
		line = append(line, `,"payload":null`...)
	}
	t.end(line)
	t.raw = append(t.raw[:0], zeros[:padding(size)]...)
}

// segment records raw bytes, after the padding that is still due.
func (t *tarSplit) segment(b []byte) {
	line := append(t.line[:0], `{"type":2,"payload":"`...)
	if len(t.raw) > 0 {
		t.raw = append(t.raw, b...)
		b = t.raw
	}
	line = base64.StdEncoding.AppendEncode(line, b)
	t.end(append(line, '"'))
}

func (t *tarSplit) end(line []byte) {
	line = append(line, `,"position":`...)
	line = strconv.AppendInt(line, t.position, 10)
	line = append(line, '}', '\n')
	t.position++
	_, _ = t.w.Write(line) // a bufio.Writer keeps its first error for Flush
	t.line = line
}

// close records the end of the archive.
func (t *tarSplit) close(trailer []byte) error {
	if t == nil {
		return nil
	}
	t.segment(trailer)
	return t.w.Flush()
}

// appendName appends the member that holds a file's name: text, or base64 where it is not UTF-8.
func appendName(line []byte, dir, base string) []byte {
	if plain(dir) && plain(base) {
		line = append(line, `"name":"`...)
		line = append(line, dir...)
		line = append(line, base...)
		return append(line, '"')
	}
	name := dir + base
	if !utf8.ValidString(name) {
		line = append(line, `"name_raw":"`...)
		line = base64.StdEncoding.AppendEncode(line, []byte(name))
		return append(line, '"')
	}
	text, err := json.Marshal(name)
	if err != nil { // a string always marshals
		text = []byte(`""`)
	}
	return append(append(line, `"name":`...), text...)
}

// plain reports whether a JSON string of s needs no escape.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20, c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}
