package layerdiff

import (
	"errors"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/tarsplit"
	"github.com/kimg/kimg/layerdiff/view"
)

const (
	batchEntries = 32
	batchSize    = 1 << 20   // buffer of one batch
	inlineSize   = 256 << 10 // files up to this size are read ahead into the buffer of their batch
	batchMargin  = 32 << 10  // room kept for one entry's header and padding
)

// batch is a run of consecutive entries. One worker prepares them all; the emitter takes batches in the order of the
// walk. Batches are few and go round, which is what bounds memory.
type batch struct {
	entries []entry
	buf     []byte // tar members, one behind the other
	err     error  // why the entry behind the last could not be prepared
	done    chan struct{}
}

// producer walks the tree and fills batches. It is the visitor of a layer that is written.
type producer struct {
	x *run
	b *batch
}

// produce runs the walk to its end and closes the channels behind it.
func (x *run) produce(root *dir) {
	defer close(x.jobs)
	defer close(x.queue)
	p := &producer{x: x}
	err := x.tree.walk(root, p)
	if err2 := p.leave(root); err == nil {
		err = err2
	}
	x.walked = err
	p.flush()
}

// next makes sure that there is a batch to put an entry into.
func (p *producer) next() error {
	if p.b != nil {
		return nil
	}
	if err := p.x.trimOpen(); err != nil {
		return err
	}
	select {
	case p.b = <-p.x.free:
		if p.b.buf == nil {
			p.b.buf = make([]byte, 0, batchSize)
		}
		p.b.buf = p.b.buf[:0]
		return nil
	case <-p.x.ctx.Done():
		return p.x.ended()
	}
}

// flush sends the batch on.
func (p *producer) flush() {
	if p.b == nil {
		return
	}
	p.x.queue <- p.b // both have room for every batch there is
	p.x.jobs <- p.b
	p.b = nil
}

// add appends an entry; its directory is in use until the entry is done with.
func (p *producer) add(e entry) error {
	if err := p.next(); err != nil {
		return err
	}
	e.dir.users.Add(1)
	if e.sub != nil {
		e.sub.users.Add(1)
	}
	p.b.entries = append(p.b.entries, e)
	if len(p.b.entries) == batchEntries {
		p.flush()
	}
	if p.x.tooManyOpen() {
		p.flush()
	}
	return nil
}

func (p *producer) enter(d *dir) error {
	e := entry{dir: d.parent, name: d.name, sub: d, kind: kindDir, head: -1}
	if d.kept != "" && !d.same {
		e.reason = keptBack(d.kept)
	}
	return p.add(e)
}

func (p *producer) visit(d *dir, n view.Name) error {
	return p.add(entry{dir: d, name: n.Name, typ: n.Type, at: n.At, head: -1})
}

func (p *producer) leftOut(d *dir, name, reason string) error {
	return p.add(entry{dir: d, name: name, kind: kindLeftOut, reason: reason, head: -1})
}

func (p *producer) leave(d *dir) error { return p.x.leave(d) }

// tooManyOpen reports whether directories hold more file descriptors than they should.
func (x *run) tooManyOpen() bool { return x.tree.open.Load() > x.maxOpen }

// trimOpen waits until all batches under way are done with their directories when too many of those are open. What is
// left then is the chain of directories the walk is in.
func (x *run) trimOpen() error {
	if !x.tooManyOpen() {
		return nil
	}
	var idle []*batch
	defer func() {
		for _, b := range idle {
			x.free <- b
		}
	}()
	for len(idle) < cap(x.free) {
		select {
		case b := <-x.free:
			idle = append(idle, b)
		case <-x.ctx.Done():
			return x.ended()
		}
	}
	return nil
}

// work prepares batches until there are no more.
func (x *run) work() {
	scratch := make([]byte, 128<<10)
	for b := range x.jobs {
		for i := range b.entries {
			err := x.cancelled()
			if err == nil {
				err = x.prepare(b, &b.entries[i], scratch)
			}
			if err != nil {
				x.abandon(b.entries[i:])
				b.entries, b.err = b.entries[:i], err
				break
			}
		}
		b.done <- struct{}{}
	}
}

// prepare does everything for an entry that does not depend on the entries before it: inspect it, build its tar member
// in the batch's buffer and stage it. What must wait for its turn is left to emit.
func (x *run) prepare(b *batch, e *entry, scratch []byte) error {
	switch e.kind {
	case kindLeftOut:
		return nil
	case kindDir:
		if e.sub.same {
			return nil
		}
		if x.stage != nil {
			if _, err := x.stage.dir(e.sub); err != nil {
				return err
			}
		}
		h := e.sub.header()
		return b.head(e, &h, &e.sub.attrs)
	}
	room := len(b.buf)
	return x.retried(e, func() error {
		b.buf = b.buf[:room]
		return x.prepareOther(b, e, scratch)
	})
}

// prepareOther does so for what is no directory. A file that changed while it was read is as before: nothing of it is staged.
func (x *run) prepareOther(b *batch, e *entry, scratch []byte) error {
	fd, err := x.tree.inspect(e, scratch)
	if x.o.SkipUnreadable && errors.Is(err, errUnreadable) {
		e.kind, e.reason = kindLeftOut, err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	switch e.kind {
	case kindFile:
		return x.prepareFile(b, e, fd)
	case kindWhiteout:
		if x.stage != nil {
			if err := x.stage.whiteout(e); err != nil {
				return err
			}
		}
	case kindNode:
		if e.linked() {
			return nil
		}
		if x.stage != nil {
			if err := x.stage.node(e); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	h := e.header()
	return b.head(e, &h, &e.attrs)
}

// head appends the header of a member without content, if there is room.
func (b *batch) head(e *entry, h *header, a *attrs) (err error) {
	if len(b.buf)+batchMargin > batchSize || a.size() > batchMargin/2 {
		return nil
	}
	e.head = len(b.buf)
	b.buf, err = appendHeader(b.buf, h)
	e.body, e.end = len(b.buf), len(b.buf)
	if err != nil {
		return kimg.Wrap(kimg.Escape(e.path(), 256), err)
	}
	return nil
}

// prepareFile reads a small file into the batch's buffer and stages it; others are streamed when their turn comes. It
// closes fd.
func (x *run) prepareFile(b *batch, e *entry, fd int) error {
	defer closeRead(fd)
	size := e.st.Size
	if e.linked() || size > inlineSize || int64(len(b.buf))+size+batchMargin > batchSize ||
		e.attrs.size() > batchMargin/2 || sparse(e.content()) {
		return nil
	}
	if err := e.rested(fd); err != nil {
		return err
	}
	h := e.header()
	if err := b.head(e, &h, &e.attrs); err != nil {
		return err
	}
	// One byte more than announced tells a file that grew.
	content := b.buf[e.body : e.body+int(size)+1]
	n, err := atfs.Read(fd, content, size)
	if err != nil {
		return reading(e.path(), err)
	}
	if int64(n) != size {
		return fail(kimg.ErrBusy, e.path(), "%w: %d bytes instead of %d", errTorn, n, size)
	}
	if err := e.recheck(fd); err != nil {
		return err
	}
	content = content[:size]
	if x.stage != nil {
		if err := x.stage.smallFile(e, fd, content); err != nil {
			return err
		}
	}
	if x.split != nil {
		e.crc = tarsplit.Update(0, content)
	}
	b.buf = append(b.buf[:e.body+int(size)], zeros[:padding(size)]...)
	e.end = len(b.buf)
	return nil
}
