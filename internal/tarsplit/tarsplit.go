// Package tarsplit writes the record from which tar-split puts a layer's tar together again, byte for byte, with the files that
// were unpacked from it. It is written while the tar streams: nothing is read a second time.
package tarsplit

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"
)

// Writer writes a record: the raw bytes of headers and padding, and for each file its name, size and checksum. It is the
// JSON that tar-split itself writes for the same tar, byte for byte. A nil Writer writes nothing. Write errors show in Close.
type Writer struct {
	w        *bufio.Writer
	line     []byte
	raw      []byte // padding of the last file, then the header of the next
	position int64
}

// NewWriter returns a Writer; nil when w is nil.
func NewWriter(w io.Writer) *Writer {
	if w == nil {
		return nil
	}
	return &Writer{w: bufio.NewWriterSize(w, 128<<10)}
}

// zeros pad a file's content to whole blocks.
var zeros [512]byte

// Member records one member of a tar whose padding is zeros: the bytes of its header, its name in two parts, and its
// content's size and checksum.
func (t *Writer) Member(header []byte, dir, base string, size int64, crc uint64) {
	if t == nil {
		return
	}
	t.File(header, dir, base, size, crc)
	t.raw = append(t.raw[:0], zeros[:-size&511]...)
}

// File records a file and the bytes before it, which include the padding of the file before.
func (t *Writer) File(before []byte, dir, base string, size int64, crc uint64) {
	t.Raw(before)
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
}

// Raw records raw bytes, after the padding that is still due.
func (t *Writer) Raw(b []byte) {
	line := append(t.line[:0], `{"type":2,"payload":"`...)
	if len(t.raw) > 0 {
		t.raw = append(t.raw, b...)
		b = t.raw
	}
	line = base64.StdEncoding.AppendEncode(line, b)
	t.raw = t.raw[:0]
	t.end(append(line, '"'))
}

func (t *Writer) end(line []byte) {
	line = append(line, `,"position":`...)
	line = strconv.AppendInt(line, t.position, 10)
	line = append(line, '}', '\n')
	t.position++
	_, _ = t.w.Write(line) // a bufio.Writer keeps its first error for Flush
	t.line = line
}

// Close records the end of the archive and returns the first error there was.
func (t *Writer) Close(trailer []byte) error {
	if t == nil {
		return nil
	}
	t.Raw(trailer)
	return t.Flush()
}

// Flush returns the first error there was. What is recorded so far is written.
func (t *Writer) Flush() error { return t.w.Flush() }

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
