package layerdiff

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/tarsplit"
)

// sparseSize is the size below which holes are not worth looking for.
const sparseSize = 32 << 10

// sparse reports whether a file has holes.
func sparse(st *unix.Stat_t) bool { return st.Size >= sparseSize && st.Blocks*512 < st.Size }

// recheck compares the open content of a file with what was seen of it before.
func (e *entry) recheck(fd int) error {
	var now unix.Stat_t
	if err := retryStat(fd, &now); err != nil {
		return reading(e.path(), err)
	}
	return e.stillIs(e.content(), &now)
}

// stream emits a regular file that is too large to be read ahead, or has to wait for its turn.
func (m *emitter) stream(e *entry) (err error) {
	x := m.x
	src, err := m.settled(e)
	if err != nil {
		return err
	}
	defer closeRead(src)
	if err := m.count(); err != nil {
		return err
	}
	h := e.header()
	if err := m.header(&h); err != nil {
		return err
	}
	c := content{m: m, e: e, src: src, dst: -1}
	shared := false
	if x.stage != nil {
		// A file that is shared gains a name, which changes its change time: it is linked after the last look at that.
		shared = x.stage.links
		if !shared {
			if err := c.open(); err != nil {
				return err
			}
		}
	}
	if err = c.copy(); err == nil {
		err = e.recheck(src)
	}
	if err == nil && shared {
		err = c.share()
	}
	if c.dst >= 0 {
		if err != nil {
			closeRead(c.dst)
			return err
		}
		err = x.stage.finish(c.dst, e)
	}
	if err != nil {
		return err
	}
	x.split.Member(m.buf, h.dir, h.base, h.size, c.crc)
	return x.out(zeros[:padding(h.size)])
}

// content is the content of one file on its way into the stream and, unless dst is negative, into a staged copy.
type content struct {
	m        *emitter
	e        *entry
	src, dst int
	cloned   bool // dst has its content already
	crc      uint64
}

// open begins the staged copy.
func (c *content) open() (err error) {
	s := c.m.x.stage
	if c.dst, err = s.create(c.e); err != nil {
		return err
	}
	c.cloned = s.clone(c.dst, c.src, c.e.st.Size)
	return nil
}

// share stages the file as a hard link or, where that cannot be done, copies it after all.
func (c *content) share() error {
	done, err := c.m.x.stage.share(c.e, -1)
	if done || err != nil {
		return err
	}
	if err := c.open(); err != nil {
		return err
	}
	again := content{m: nil, e: c.e, src: c.src, dst: c.dst, cloned: c.cloned}
	if err := again.each(c.m.x, again.write); err != nil {
		return err
	}
	return c.e.recheck(c.src)
}

// copy passes the content on, and writes it.
func (c *content) copy() error {
	return c.each(c.m.x, func(data []byte, at int64, hole bool) error {
		if err := c.m.x.out(data); err != nil {
			return err
		}
		if c.m.x.split != nil {
			c.crc = tarsplit.Update(c.crc, data)
		}
		return c.write(data, at, hole)
	})
}

// write writes one piece of the staged copy; holes stay holes.
func (c *content) write(data []byte, at int64, hole bool) (err error) {
	if c.dst < 0 || c.cloned {
		return nil
	}
	end := at + int64(len(data))
	switch {
	case !hole:
		err = pwrite(c.dst, data, at)
	case end == c.e.st.Size:
		err = unix.Ftruncate(c.dst, end)
	}
	return c.e.staging(err)
}

// each calls do with the pieces of the content in order. Data is read into chunks of the sink and handed back after do.
func (c *content) each(x *run, do func(data []byte, at int64, hole bool) error) error {
	size, holes := c.e.st.Size, sparse(c.e.content())
	if size > chunkSize {
		_ = unix.Fadvise(c.src, 0, 0, unix.FADV_SEQUENTIAL) // only advice
	}
	dataEnd := size
	if holes {
		dataEnd = 0
	}
	for at := int64(0); at < size; {
		if err := x.cancelled(); err != nil {
			return err
		}
		if at == dataEnd {
			from, to, err := nextData(c.src, at, size)
			if err != nil {
				return reading(c.e.path(), err)
			}
			for at < from {
				if err := x.cancelled(); err != nil {
					return err
				}
				n := min(from-at, int64(len(zeros)))
				if err := do(zeros[:n], at, true); err != nil {
					return err
				}
				at += n
			}
			dataEnd = to
			continue
		}
		chunk := x.sink.chunk()
		piece := chunk[:min(dataEnd-at, chunkSize)]
		n, err := pread(c.src, piece, at)
		switch {
		case err != nil:
			err = reading(c.e.path(), err)
		case n < len(piece):
			err = fail(kimg.ErrBusy, c.e.path(), "%w: %d bytes instead of %d", errTorn, at+int64(n), size)
		default:
			err = do(piece, at, false)
		}
		x.sink.release(chunk)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// nextData returns the next part of a file that is not a hole: from size to size when only holes are left.
func nextData(fd int, at, size int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if errors.Is(err, unix.EINVAL) { // the file system does not tell
		return at, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if to, err = unix.Seek(fd, from, unix.SEEK_HOLE); err != nil {
		return 0, 0, err
	}
	return min(from, size), min(to, size), nil
}

func pread(fd int, p []byte, at int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(fd, p[n:], at+int64(n))
		if err != nil && err != unix.EINTR {
			return n, err
		}
		if err == nil && m == 0 {
			return n, nil
		}
		n += max(m, 0)
	}
	return n, nil
}

func pwrite(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		if err != nil && err != unix.EINTR {
			return err
		}
		n = max(n, 0)
		p, at = p[n:], at+int64(n)
	}
	return nil
}
