package image

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/chunked"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff"
)

// blob is one layer of a source on its way.
type blob struct {
	digest digest.Digest                                                      // of the bytes that open gives
	size   int64                                                              // as the manifest declares; -1: it does not
	layer  string                                                             // of the store; empty: none
	forms  []packedAs                                                         // compressed forms of a layer of the store
	open   func(ctx context.Context) (r io.ReadCloser, size int64, err error) // nil: of a foreign layer that is not here
	write  func(ctx context.Context, w io.Writer) error                       // the same bytes, verified when it returns nil; nil: only open gives them
}

// form is how a layer lies at a destination.
type form int

const (
	keep     form = iota // the source's own bytes
	packAnew             // compressed anew
	asPlain              // not compressed
)

// shape decides on the form of a layer by how its source is compressed.
type shape func(compression.Algorithm) form

// keepAll changes nothing.
func keepAll(compression.Algorithm) form { return keep }

// moved is a layer that is at its destination.
type moved struct {
	facts
	at   identity // at the destination
	form form
}

// compression is how the layer is compressed at the destination.
func (m moved) compression() compression.Algorithm {
	switch m.form {
	case packAnew:
		return m.packed.algorithm
	case asPlain:
		return compression.None
	}
	return m.facts.compression
}

// move brings one blob to a destination (nil: it is only read and verified), in the form that the destination wants. What is
// there already is not written, and what is known already is not read.
func (c *Converter) move(ctx context.Context, b blob, dst Destination, in shape) (moved, error) {
	r, err := c.memo.take(ctx, b.digest)
	if err != nil {
		return moved{}, err
	}
	defer r.done()
	if r.known {
		if b.size >= 0 && b.size != r.facts.size {
			return moved{}, sizeError(b, r.facts.size)
		}
		m := moved{facts: r.facts, form: in(r.facts.compression)}
		m.at = m.target(b)
		if dst == nil {
			return m, nil
		}
		if m.at.digest != "" {
			if there, err := dst.Has(ctx, m.at.digest, m.at.size); err != nil || there {
				return m, err
			}
		}
	}
	var m moved
	err = c.patience().Resend(ctx, func() (err error) {
		m, err = c.read(ctx, b, r, dst, in)
		return err
	})
	return m, kimg.Wrap(b.digest.String(), err)
}

// target is what the layer is called at the destination; zero when that is not known before it is made.
func (m moved) target(b blob) identity {
	switch m.form {
	case asPlain:
		return identity{m.diffID, m.plain}
	case packAnew:
		return m.packed.identity
	}
	return identity{b.digest, m.size}
}

// packing is what layers are compressed with that are compressed anew.
func (c *Converter) packing() compression.Algorithm {
	return cmp.Or(compression.Algorithm(c.o.Compression), compression.Gzip)
}

func sizeError(b blob, size int64) error {
	return kimg.Errorf(kimg.ErrIntegrity, b.digest.String(), "size: %d bytes where the manifest says %d", size, b.size)
}

// read reads the blob once: verifies it, measures it when it is new, and writes it to the destination.
func (c *Converter) read(ctx context.Context, b blob, r *remembered, dst Destination, in shape) (_ moved, err error) {
	told := c.moving(b)
	defer func() { told.End(err) }()
	body, size, err := b.open(ctx)
	if err != nil {
		return moved{}, err
	}
	defer body.Close()
	if b.size >= 0 && size >= 0 && size != b.size {
		return moved{}, sizeError(b, size)
	}
	size = max(size, b.size)
	src := bufio.NewReaderSize(io.TeeReader(streamio.WithContext(ctx, body), told), 256<<10)
	first, err := src.Peek(6)
	if err != nil && err != io.EOF {
		return moved{}, err
	}
	p := pass{ctx: ctx, b: b, src: src, size: size, algorithm: compression.Detect(first), jobs: c.o.jobs(), algo: layerdiff.Compression(c.packing()), level: c.o.Level}
	m := moved{facts: r.facts, form: in(p.algorithm)}
	if !r.known {
		p.sum = &measure{}
		if p.algorithm != compression.None || b.digest.Algorithm() != digest.SHA256 {
			p.sum.h = digest.SHA256.Hash()
		}
	}
	there := dst == nil
	if dst != nil && !r.known && m.form == keep && size >= 0 {
		if there, err = dst.Has(ctx, b.digest, size); err != nil {
			return moved{}, err
		}
	}
	switch {
	case there:
		m.at, err = identity{b.digest, size}, p.verify(io.Discard)
	case m.form == keep:
		m.at, err = put(ctx, dst, identity{b.digest, size}, p.keep)
	case m.form == asPlain:
		m.at, err = put(ctx, dst, identity{m.diffID, m.plain}.orUnknown(), p.verify)
	default:
		m.at, err = put(ctx, dst, m.packed.orUnknown(), p.compress)
	}
	if err != nil {
		return moved{}, err
	}
	if !r.known {
		m.facts = p.sum.facts(identity{b.digest, p.n}, p.algorithm)
	}
	if m.form == packAnew && !there {
		m.packed = packedAs{m.at, c.packing(), asTOC(p.toc), c.o.Level}
	}
	r.learn(m.facts)
	if there {
		m.at = m.target(b)
	}
	return m, nil
}

// orUnknown is the identity as Put takes it.
func (i identity) orUnknown() identity {
	if i.digest == "" {
		i.size = -1
	}
	return i
}

// pass is one reading of a blob.
type pass struct {
	ctx       context.Context
	b         blob
	src       io.Reader
	size      int64 // of the blob; -1: not known
	algorithm compression.Algorithm
	sum       *measure // nil: the facts are known
	jobs      int
	algo      layerdiff.Compression // of what is compressed anew
	level     int
	n         int64             // bytes of the blob that were read
	toc       map[string]string // annotations of what was compressed to zstd:chunked
}

// keep writes the blob as it is. Its digest is checked by whoever is written to.
func (p *pass) keep(w io.Writer) error {
	src := p.src
	if p.size >= 0 {
		src = io.LimitReader(src, p.size+1) // one byte too many is enough to see it
	}
	raw := io.TeeReader(&counted{src, &p.n}, w)
	if p.sum == nil {
		_, err := streamio.Copy(io.Discard, raw)
		return err
	}
	return p.unpack(raw, p.sum)
}

// verify checks the blob and writes what it unpacks to.
func (p *pass) verify(w io.Writer) error {
	v, err := streamio.NewVerifier(&counted{p.src, &p.n}, p.size, p.b.digest)
	if err != nil {
		return err
	}
	if p.sum == nil {
		return p.unpack(v, w)
	}
	return p.unpack(v, io.MultiWriter(p.sum, w))
}

// compress checks the blob and writes what it unpacks to, compressed. The same tar gives the same bytes on every machine.
func (p *pass) compress(w io.Writer) error {
	z, err := p.compressor(w)
	if err != nil {
		return err
	}
	if err := p.verify(z); err != nil {
		_ = z.Close() // ends its goroutines
		return err
	}
	return z.Close()
}

func (p *pass) compressor(w io.Writer) (io.WriteCloser, error) {
	if p.algo != layerdiff.ZstdChunked {
		return layerdiff.Compress(w, p.algo, p.level, p.jobs)
	}
	p.toc = map[string]string{}
	return chunked.New(w, p.level, p.toc)
}

// unpack writes the plain form of a blob, and reads the blob to its end.
func (p *pass) unpack(raw io.Reader, w io.Writer) error {
	plain, _, err := compression.NewReader(p.ctx, raw)
	if err != nil {
		return err
	}
	defer plain.Close()
	if _, err := streamio.Copy(w, plain); err != nil {
		return err
	}
	n, err := streamio.Copy(io.Discard, raw)
	if err == nil && n > 0 {
		err = kimg.Errorf(kimg.ErrIntegrity, "", "layer-data: it goes on after its end")
	}
	return err
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.n += int64(n)
	return n, err
}

// errStopped ends a producer whose consumer has failed.
var errStopped = errors.New("the destination has stopped reading")

// put lets a destination read what produce writes. What went wrong first is returned.
func put(ctx context.Context, dst Destination, want identity, produce func(io.Writer) error) (identity, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := guard(func() error { return produce(w) })
		w.CloseWithError(err)
		done <- err
	}()
	d, size, err := dst.Put(ctx, want.digest, want.size, r)
	r.CloseWithError(errStopped)
	if perr := <-done; perr != nil && !errors.Is(perr, errStopped) {
		return identity{}, perr
	} else if err == nil && perr != nil {
		err = kimg.Errorf(kimg.ErrIntegrity, "", "size: it goes on after %d bytes", want.size)
	}
	return identity{d, size}, err
}

// guard turns a panic, of a decoder that meets what it does not expect, into an error: in a goroutine it would end the program.
func guard(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = kimg.Errorf(kimg.ErrInternal, "", "%v", v)
		}
	}()
	return do()
}
