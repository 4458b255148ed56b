package commit

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// offer is one layer as the image names it: uncompressed, or compressed in a form that was made now or is remembered.
type offer struct {
	layer  string        // id of the layer that remembers
	diffID digest.Digest // of the uncompressed tar
	plain  int64         // size of the uncompressed tar
	write  func(context.Context, io.Writer) error

	blob store.KnownBlob // the compressed form; no Digest: it is offered uncompressed
	file *os.File        // the compressed form; nil: it is made when somebody wants it
}

// digest is that of the blob in the image.
func (o *offer) digest() digest.Digest { return cmp.Or(o.blob.Digest, o.diffID) }

func (o *offer) size() int64 {
	if o.blob.Digest != "" {
		return o.blob.Size
	}
	return o.plain
}

// maker compresses the layers of one image, each once for all places, and teaches the layers of the store what came out.
type maker struct {
	ctx context.Context // of the commit: nobody gives one to Close
	st  *store.Store
	o   Options

	mu        sync.Mutex
	made      []madeBlob
	lessons   map[string][]store.KnownBlob // for [store.Store.RememberBlobs]
	forgotten int                          // what was remembered and wrong, since stale was asked
}

// madeBlob is a layer that was compressed into a file.
type madeBlob struct {
	store.KnownBlob
	file *os.File
}

func newMaker(ctx context.Context, st *store.Store, o Options) *maker {
	return &maker{ctx: ctx, st: st, o: o, lessons: map[string][]store.KnownBlob{}}
}

// newest makes the pass over what the container changed. It compresses at once, when the layer is to be compressed and the
// container's own layer remembers nothing made with these settings; else it only hashes.
func (m *maker) newest(ctx context.Context, p *plan, algo layerdiff.Compression, level int) (blob layerdiff.Blob, err error) {
	pass := func(ctx context.Context, w io.Writer) (digest.Digest, error) {
		blob, err = layerdiff.Write(ctx, w, p.stack.Stack, p.diff(false))
		return blob.DiffID, err
	}
	known, err := m.remembered(ctx, p.container.LayerID, algo, level, "")
	if err != nil {
		return blob, err
	}
	if algo == layerdiff.NoCompression || known != nil {
		_, err = pass(ctx, io.Discard)
		return blob, err
	}
	b, err := m.make(ctx, algo, level, pass)
	if err == nil { // also of an empty layer, which nobody offers: next time it is only hashed
		err = m.learn(ctx, p.container.LayerID, b)
	}
	return blob, err
}

// form decides in which form a layer is offered: one that was made before, one that is remembered, or one that is made now.
func (m *maker) form(ctx context.Context, o *offer, algo layerdiff.Compression, level int) error {
	if algo == layerdiff.NoCompression {
		return nil
	}
	for _, b := range m.made {
		if b.DiffID == o.diffID && b.Algorithm == string(algo) && b.Level == level {
			o.blob, o.file = b.KnownBlob, b.file
			return nil
		}
	}
	known, err := m.remembered(ctx, o.layer, algo, level, o.diffID)
	if err != nil {
		return err
	}
	if known != nil {
		o.blob = *known
		return nil
	}
	b, err := m.make(ctx, algo, level, func(ctx context.Context, w io.Writer) (digest.Digest, error) { return o.diffID, o.write(ctx, w) })
	if err != nil {
		return err
	}
	o.blob, o.file = b.KnownBlob, b.file
	return m.learn(ctx, o.layer, b)
}

// remembered finds a compressed form that a layer remembers, of one tar or of any; nil: there is none.
func (m *maker) remembered(ctx context.Context, layer string, algo layerdiff.Compression, level int, diffID digest.Digest) (*store.KnownBlob, error) {
	known, err := m.st.KnownBlobs(ctx, layer)
	for _, b := range known {
		if b.Algorithm == string(algo) && b.Level == level && (diffID == "" || b.DiffID == diffID) && !m.wrong(layer, b) {
			return &b, err
		}
	}
	return nil, err
}

// make compresses a layer into a file without a name: the manifest comes before the layers, so the digest must be known by then.
func (m *maker) make(ctx context.Context, algo layerdiff.Compression, level int, pass func(context.Context, io.Writer) (digest.Digest, error)) (madeBlob, error) {
	f, err := os.CreateTemp(cmp.Or(m.o.TempDir, os.Getenv("TMPDIR"), "/var/tmp"), "kimg-layer-") // /tmp is memory on many machines
	if err != nil {
		return madeBlob{}, err
	}
	b := madeBlob{file: f, KnownBlob: store.KnownBlob{Algorithm: string(algo), Level: level}}
	sum := streamio.NewMeter(f)
	if err = os.Remove(f.Name()); err == nil {
		err = m.compress(sum, algo, level, func(w io.Writer) (err error) {
			b.DiffID, err = pass(ctx, w)
			return err
		})
	}
	if err != nil {
		f.Close()
		return madeBlob{}, err
	}
	b.Digest, b.Size = sum.Digest(), sum.Size()
	m.made = append(m.made, b)
	return b, nil
}

func (m *maker) compress(w io.Writer, algo layerdiff.Compression, level int, write func(io.Writer) error) error {
	z, err := layerdiff.Compress(w, algo, level, m.o.Jobs)
	if err != nil {
		return err
	}
	if err := write(z); err != nil {
		_ = z.Close() // ends its goroutines
		return err
	}
	return z.Close()
}

// read returns the blob of an offer. One that is only remembered is made again, and must come out the same.
func (m *maker) read(ctx context.Context, o *offer) io.ReadCloser {
	switch {
	case o.blob.Digest == "":
		return streamio.Produce(ctx, o.write)
	case o.file != nil:
		return io.NopCloser(io.NewSectionReader(o.file, 0, o.blob.Size))
	}
	return streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error {
		sum := &promised{streamio.NewMeter(w), o.blob.Size}
		err := m.compress(sum, layerdiff.Compression(o.blob.Algorithm), o.blob.Level, func(w io.Writer) error { return o.write(ctx, w) })
		if err == nil && sum.Digest() != o.blob.Digest {
			err = errOther
		}
		if errors.Is(err, errOther) {
			m.forget(o)
			err = kimg.Errorf(kimg.ErrIntegrity, o.blob.Digest.String(), "%w", err)
		}
		return err
	})
}

var errOther = errors.New("the layer does not come out as it did before; that is forgotten now")

// promised passes on as many bytes as a blob has: a destination that gets more would end the copy before its digest is known.
type promised struct {
	*streamio.Meter
	size int64
}

func (p *promised) Write(b []byte) (int, error) {
	if p.Size()+int64(len(b)) > p.size {
		return 0, errOther
	}
	return p.Meter.Write(b)
}

// close gives the compressed layers up.
func (m *maker) close() {
	for _, b := range m.made {
		b.file.Close() // it has no name: what was written goes
	}
	m.made = nil
}
