package commit

import (
	"cmp"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// maker puts the layers of one image into files, each once for all places, and teaches the layers of the store what came out.
type maker struct {
	ctx context.Context // of the commit: nobody gives one to Close
	st  *store.Store
	o   Options

	mu        sync.Mutex
	made      []madeBlob
	lessons   map[string][]store.KnownBlob // for [store.Store.RememberBlobs]
	forgotten int                          // what was remembered and wrong, since stale was asked

	// later learns what an empty layer is compressed to. Nobody offers that, but next time the container is only hashed. A copy that
	// fails must not have changed the store for it, so it waits for the end.
	later func() error
}

// recipe is how the layers of an image are put down.
type recipe struct {
	algo  layerdiff.Compression
	level int
	into  *oneCopy // a place in the file system, which the files become part of; nil: files without a name, and of compressed layers only
	steps *steps   // of the place the layers are for; may be nil
}

// madeBlob is a layer in a file. An uncompressed one has no algorithm.
type madeBlob struct {
	store.KnownBlob
	file *os.File
}

// making is a layer on its way into a file.
type making struct {
	io.WriteCloser // the compressor
	recipe
	file *os.File
	sum  *streamio.Meter // of what is compressed
	step *layerStep      // may be nil
}

// Write takes a part of the uncompressed layer.
func (x *making) Write(p []byte) (int, error) {
	n, err := x.WriteCloser.Write(p)
	x.step.moved(n)
	return n, err
}

func newMaker(ctx context.Context, st *store.Store, o Options) *maker {
	o.Logger = cmp.Or(o.Logger, st.Logger())
	return &maker{ctx: ctx, st: st, o: o, lessons: map[string][]store.KnownBlob{}}
}

// newest makes the pass over what the container changed, which write does: the layer comes into being in that pass, unless nobody wants
// it in a file, or the container's own layer remembers what it came to with these settings and that is there already.
func (m *maker) newest(ctx context.Context, layer string, r recipe, write func(context.Context, io.Writer) (layerdiff.Blob, error)) (layerdiff.Blob, error) {
	wanted := r.into != nil
	if r.algo != layerdiff.NoCompression {
		known, err := m.remembered(ctx, layer, r, "")
		if err != nil {
			return layerdiff.Blob{}, err
		}
		_, empty := convert.EmptyLayer() // which nobody offers
		if wanted = known == nil; known != nil && r.into != nil && known.DiffID != empty.DiffID {
			there, err := r.into.to.Has(ctx, known.Digest, known.Size)
			if err != nil {
				return layerdiff.Blob{}, err
			}
			wanted = !there
		}
	}
	if !wanted {
		return write(ctx, io.Discard)
	}
	c, err := layerdiff.NewCompressor(r.algo, r.level, m.o.Jobs)
	if err != nil {
		return layerdiff.Blob{}, err
	}
	x, err := m.begin(r, c)
	if err != nil {
		return layerdiff.Blob{}, err
	}
	blob, err := write(ctx, x)
	if cerr := x.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = m.finish(ctx, x, layer, blob)
	}
	if err != nil {
		x.discard()
	}
	return blob, err
}

// prepare decides in which form each layer is offered: as it lies in a file, as it is remembered, or as it is made now, several
// side by side. Compressed layers are made before the manifest that names them. At a place in the file system all are, because there being
// made is being copied.
func (m *maker) prepare(ctx context.Context, offers []*offer, r recipe) error {
	var todo []*offer
	for _, o := range offers {
		if !m.use(o, r) && (r.algo != layerdiff.NoCompression || r.into != nil) {
			todo = append(todo, o)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	unlock, err := m.lock(ctx, todo, r)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := layerdiff.NewCompressor(r.algo, r.level, m.o.Jobs)
	if err != nil {
		return err
	}
	chain, making := make([]layerdiff.Source, len(todo)), make([]*making, len(todo))
	for i, o := range todo {
		chain[i] = layerdiff.Source{DiffID: o.diffID, Write: func(ctx context.Context, w io.Writer) (layerdiff.Blob, error) {
			return layerdiff.Blob{DiffID: o.diffID, Size: o.plain}, m.write(ctx, o, w)
		}}
	}
	blobs, err := layerdiff.WriteAll(ctx, chain, func(ctx context.Context, i int) (io.WriteCloser, error) {
		if wanted, err := m.wanted(ctx, todo[i], r); err != nil || !wanted {
			return nil, err
		}
		var err error
		if making[i], err = m.begin(r, c); err == nil {
			making[i].step = r.steps.layer(todo[i].diffID.String(), todo[i].plain)
		}
		return making[i], err
	}, c.Layers())
	for i, x := range making {
		if x != nil && err == nil {
			err = m.finish(ctx, x, todo[i].layer, blobs[i])
		}
		if x != nil {
			x.step.end(err)
		}
		if x != nil && err != nil {
			x.discard()
		}
	}
	if err != nil {
		return err
	}
	for i, o := range todo {
		if !m.use(o, r) && o.blob.Digest == "" && r.algo != layerdiff.NoCompression { // equal to one that is remembered
			o.blob = todo[slices.IndexFunc(todo[:i], func(p *offer) bool { return p.diffID == o.diffID })].blob
		}
	}
	if r.algo != layerdiff.NoCompression {
		m.keep() // before the locks go: whoever waits for them reads it
	}
	return nil
}

// wanted tells whether a layer has to be made: nobody remembers what it comes to, or it is not at the place yet.
func (m *maker) wanted(ctx context.Context, o *offer, r recipe) (bool, error) {
	if r.algo != layerdiff.NoCompression {
		known, err := m.remembered(ctx, o.layer, r, o.diffID)
		if err != nil || known == nil {
			return true, err
		}
		o.blob = *known
	}
	if r.into == nil {
		return false, nil
	}
	there, err := r.into.to.Has(ctx, o.digest(), o.size())
	return !there, err
}

// lock keeps everybody else with this store from compressing the same layers in the same way at the same time: who comes second finds out
// what the first made. Always in the same order, so that two do not wait for each other.
func (m *maker) lock(ctx context.Context, offers []*offer, r recipe) (unlock func(), err error) {
	var locks []func()
	unlock = func() {
		for _, l := range locks {
			l()
		}
	}
	sorted := slices.SortedFunc(slices.Values(offers), func(a, b *offer) int { return strings.Compare(a.diffID.String(), b.diffID.String()) })
	for _, o := range slices.CompactFunc(sorted, func(a, b *offer) bool { return a.diffID == b.diffID }) {
		if r.algo == layerdiff.NoCompression {
			break
		}
		known, err := m.remembered(ctx, o.layer, r, o.diffID)
		if err == nil && known == nil {
			var l func()
			if l, err = m.st.LockBlob(ctx, store.KnownBlob{DiffID: o.diffID, Algorithm: string(r.algo), Level: r.level}); err == nil {
				locks = append(locks, l)
			}
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// begin opens a file for a layer. The caller closes the result, and then finishes or discards it.
func (m *maker) begin(r recipe, c *layerdiff.Compressor) (_ *making, err error) {
	x := &making{recipe: r}
	if r.into != nil {
		x.file, err = r.into.to.File()
	} else {
		x.file, err = safeopen.Nameless(cmp.Or(m.o.TempDir, os.Getenv("TMPDIR"), "/var/tmp"), "kimg-layer-") // /tmp is memory on many machines
	}
	if err == nil {
		x.sum = streamio.NewMeter(writing{x})
		w := io.Writer(x.sum)
		if r.algo == layerdiff.NoCompression { // whoever writes knows its digest
			w = writing{x}
		}
		x.WriteCloser, err = c.Writer(w)
	}
	if err != nil {
		x.discard()
		return nil, err
	}
	return x, nil
}

// writing writes the file of a layer.
type writing struct{ x *making }

func (w writing) Write(p []byte) (int, error) {
	n, err := w.x.file.Write(p)
	if at := w.x.into; at != nil {
		at.steps.move(func(before int64) int64 { return before + int64(n) })
		if err != nil {
			err = kimg.Wrap(label(at.dest), err)
		}
	}
	return n, err
}

// finish makes a file that was written to its end one of those that can be offered.
func (m *maker) finish(ctx context.Context, x *making, layer string, blob layerdiff.Blob) (err error) {
	b := madeBlob{file: x.file, KnownBlob: store.KnownBlob{DiffID: blob.DiffID, Algorithm: string(x.algo), Level: x.level, Digest: blob.DiffID, Size: blob.Size}}
	if x.algo != layerdiff.NoCompression {
		b.Digest, b.Size = x.sum.Digest(), x.sum.Size()
		learn := func() error { return m.learn(ctx, layer, b.KnownBlob) }
		if blob.Empty {
			m.later = learn
		} else {
			err = learn()
		}
	}
	switch {
	case err != nil:
		return err
	case blob.Empty:
		x.discard()
		return nil
	case x.into != nil:
		err = x.into.to.Keep(x.file, b.Digest, b.Size)
	}
	if err == nil {
		m.made = append(m.made, b)
	}
	return err
}

// discard gives a file up.
func (x *making) discard() {
	if x.file == nil {
		return
	}
	x.file.Close() // nobody reads what was written
	if x.into != nil {
		os.Remove(x.file.Name()) // else it goes with the place's staging directory
	}
}

// close gives the files up. Those that are not part of a place have no name and go.
func (m *maker) close() {
	for _, b := range m.made {
		b.file.Close()
	}
	m.made = nil
}
