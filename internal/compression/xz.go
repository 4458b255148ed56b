package compression

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/kimg/kimg"
)

// newXZ reads an xz file. Each block of each of its streams says how much memory it needs, and the decoder believes it; so
// the file is followed beside the decoder, and a block that asks for too much never reaches it.
func newXZ(b *bufio.Reader) (io.Reader, error) {
	return xz.NewReader(guardXZ(b))
}

func guardXZ(b *bufio.Reader) *xzGuard {
	g := &xzGuard{b: b}
	g.step = g.stream
	return g
}

// xzGuard passes an xz file on, part by part (The .xz File Format 1.1, sections 2 to 4; LZMA2 chunks as in its
// reference decoder). Where the file is not as it should be, all the rest is passed on: the decoder finds the same place wrong.
type xzGuard struct {
	b     *bufio.Reader
	left  int64        // bytes of the part that may be passed on
	step  func() error // looks at the next part
	check int64        // size of the check behind each block of this stream
	block int64        // bytes of the block's chunks so far, or of the index
	count uint64       // records of the index that are still to come
}

func (g *xzGuard) Read(p []byte) (int, error) {
	for g.left == 0 {
		if err := g.step(); err != nil {
			return 0, err
		}
	}
	n, err := g.b.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	return n, err
}

// pass lets n bytes through and says what comes next.
func (g *xzGuard) pass(n int64, step func() error) error {
	g.left, g.step = n, step
	return nil
}

// rest lets everything through.
func (g *xzGuard) rest() error { return g.pass(math.MaxInt64, g.rest) }

// stream looks at the header of a stream, or at the padding before one.
func (g *xzGuard) stream() error {
	const size = 12
	head, err := g.b.Peek(size)
	switch {
	case len(head) >= 4 && binary.LittleEndian.Uint32(head) == 0:
		return g.pass(4, g.stream)
	case err != nil || Detect(head) != Xz:
		return g.rest()
	}
	if id := head[7] & 0x0f; id == 0 {
		g.check = 0
	} else {
		g.check = 4 << ((id - 1) / 3)
	}
	return g.pass(size, g.blockOrIndex)
}

func (g *xzGuard) blockOrIndex() error {
	first, err := g.b.Peek(1)
	if err != nil {
		return g.rest()
	}
	if first[0] == 0 {
		return g.index()
	}
	head, err := g.b.Peek((int(first[0]) + 1) * 4)
	if err != nil {
		return g.rest()
	}
	if size := dictionary(head); size > maxWindow {
		return kimg.Errorf(kimg.ErrLimit, "", "too-big: an xz stream that needs %d bytes of memory, more than %d", size, maxWindow)
	}
	g.block = 0
	return g.pass(int64(len(head)), g.chunk)
}

// dictionary finds the size of the dictionary in a block header: after the header's size and flags come two optional sizes
// and the filters. 0: there is none, or several filters, which the decoder refuses.
func dictionary(head []byte) int64 {
	const lzma2 = 0x21
	if head[1]&0x03 != 0 {
		return 0
	}
	at := 2
	for _, flag := range []byte{0x40, 0x80} {
		if head[1]&flag != 0 {
			_, n := number(head[at:])
			at += n
		}
	}
	if at+2 >= len(head) || head[at] != lzma2 {
		return 0
	}
	size, err := lzma.DecodeDictCap(head[at+2])
	if err != nil {
		return 0
	}
	return size
}

// chunk looks at one LZMA2 chunk.
func (g *xzGuard) chunk() error {
	head, _ := g.b.Peek(6) // the last chunk of a file has fewer
	size := int64(0)
	switch {
	case len(head) > 0 && head[0] == 0: // the end of the block
		pad := -(g.block + 1) & 3
		return g.pass(1+pad+g.check, g.blockOrIndex)
	case len(head) > 2 && head[0] <= 2: // stored
		size = 3 + int64(binary.BigEndian.Uint16(head[1:])) + 1
	case len(head) > 5 && head[0] >= 0x80:
		size = 5 + int64(binary.BigEndian.Uint16(head[3:])) + 1
		if head[0] >= 0xc0 { // with new properties
			size++
		}
	default:
		return g.rest()
	}
	g.block += size
	return g.pass(size, g.chunk)
}

// index looks at the beginning of the index, which ends the blocks of a stream.
func (g *xzGuard) index() error {
	head, _ := g.b.Peek(10)
	count, n := number(head[1:])
	if n == 0 {
		return g.rest()
	}
	g.count, g.block = count, int64(1+n)
	return g.pass(g.block, g.record)
}

// record looks at one record of the index, two numbers, or at what comes behind the last: padding, check and the stream's
// footer.
func (g *xzGuard) record() error {
	if g.count == 0 {
		const check, footer = 4, 12
		return g.pass(-g.block&3+check+footer, g.stream)
	}
	head, _ := g.b.Peek(18)
	_, n := number(head)
	_, m := number(head[n:])
	if n == 0 || m == 0 {
		return g.rest()
	}
	g.count--
	g.block += int64(n + m)
	return g.pass(int64(n+m), g.record)
}

// number reads a number of variable length and returns how many bytes it takes; 0: it has no end.
func number(b []byte) (value uint64, n int) {
	value, n = binary.Uvarint(b[:min(len(b), 9)])
	return value, max(n, 0)
}
