package transfer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/store"
)

// Layer is one layer of an image on its way into a store.
type Layer struct {
	Digest digest.Digest // of the blob
	Size   int64         // of the blob, in bytes, as the manifest declares; -1: it does not
	DiffID digest.Digest // as the configuration says; empty: it does not, and the layer is fetched in any case
	TOC    digest.Digest // of the blob's table of contents, if it has one
	Labels map[string]string
	// Annotations of its descriptor say where that is.
	Annotations map[string]string
	// Sections returns parts of the blob, as [SectionSource] does. Nil: there are only whole blobs. In a store that wants parts
	// (enable_partial_images) a layer with a table of contents is then put together of what the store has and of what it does not have,
	// and fetched as a whole only when that fails.
	Sections func(ctx context.Context, parts []Section) (io.ReadCloser, error)
	// Open returns the blob, not verified, and its size or -1. It may be called for several layers at the same time, and is not
	// called for a layer that the store has.
	Open func(ctx context.Context) (io.ReadCloser, int64, error)
}

// Done is a layer that is in the store, or will be when the change is recorded.
type Done struct {
	*store.StagedLayer
	Skipped     bool                  // the store had it: it was not fetched
	Blob        int64                 // bytes of the blob; of one that was not fetched as a whole as declared
	Compression compression.Algorithm // of the blob; empty for one that was not fetched as a whole
	kept        *store.KeptBlob
}

// Options say how layers are fetched.
type Options struct {
	Jobs      int          // layers at the same time; 0 is one per processor
	KeepBlobs bool         // compressed layers keep the blobs they came as; of layers that are there they are fetched for that
	Recipes   bool         // with KeepBlobs: of blobs that are proven to be made again of the layer only how; takes a compression
	Logger    *slog.Logger // nil discards
	Progress  func(Event)  // told about layers, never twice at the same time, while every layer waits; may be nil
}

// Layers brings the layers of an image, base first, into a change. The last one's ID is the image's top layer. Class limit for more
// layers than a store can stack.
func Layers(ctx context.Context, tx *store.Tx, layers []Layer, o Options) ([]Done, error) {
	if len(layers) > convert.MaxLayers {
		return nil, kimg.Errorf(kimg.ErrLimit, "", "too-big: %d layers, the limit is %d", len(layers), convert.MaxLayers)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	names := make([]store.LayerName, len(layers))
	for i, l := range layers {
		names[i] = store.LayerName{DiffID: l.DiffID, TOC: l.TOC}
	}
	there, err := tx.Present(ctx, names)
	if err != nil {
		return nil, err
	}
	p := &pipeline{tx: tx, o: o, layers: layers, done: make([]Done, len(layers))}
	var todo []int
	for i, l := range there {
		p.done[i] = Done{StagedLayer: l, Skipped: true, Blob: layers[i].Size}
		now := time.Now()
		p.tell(Event{Layer: i, Digest: layers[i].Digest, Size: layers[i].Size, Start: now, End: now, Skipped: true})
		o.Logger.DebugContext(ctx, "layer is there", "layer", l.ID, "digest", layers[i].Digest)
		if o.KeepBlobs && layers[i].Digest != l.DiffID && !tx.KeepsBlob(l, layers[i].Digest) {
			todo = append(todo, i)
		}
	}
	for i := len(there); i < len(layers); i++ {
		todo = append(todo, i)
	}
	if err := p.fetch(ctx, todo); err != nil {
		return nil, err
	}
	return p.done, p.place(ctx, len(there))
}

// pipeline is the layers of one image under way.
type pipeline struct {
	tx     *store.Tx
	o      Options
	layers []Layer
	done   []Done
	mu     sync.Mutex // held while Progress is called
}

// fetch prepares layers, side by side. The first failure stops the others, and is returned when they have ended; a panic at once.
func (p *pipeline) fetch(ctx context.Context, todo []int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	jobs := p.o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	slots, broken := make(chan struct{}, jobs), make(chan struct{})
	var wg sync.WaitGroup
	var once sync.Once
	for _, i := range todo {
		if ctx.Err() != nil {
			break
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			panicked, err := p.layer(ctx, i)
			if err != nil {
				stop(kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)) // only the first cause counts
			}
			if panicked {
				once.Do(func() { close(broken) })
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-broken: // the others may wait for ever
	}
	return context.Cause(ctx)
}

// layer fetches and prepares one layer, and tells about it.
func (p *pipeline) layer(ctx context.Context, i int) (panicked bool, err error) {
	l, d := p.layers[i], &p.done[i]
	e := NewMeter(Event{Layer: i, Digest: l.Digest, Size: l.Size, Start: time.Now()}, p.tell)
	panicked, err = store.Guarded(func() error {
		if err := p.prepare(ctx, l, e, d); err != nil || !p.o.Recipes || d.kept == nil {
			return err
		}
		return d.kept.FindRecipe(ctx, 1)
	})
	e.End(err)
	if err == nil {
		p.o.Logger.DebugContext(ctx, "layer unpacked", "digest", l.Digest, "diffid", d.DiffID, "bytes", d.Size, "took", time.Since(e.now.Start))
	}
	return panicked, err
}

// prepare reads the blob once: verified, decompressed, hashed and unpacked, and kept if need be.
func (p *pipeline) prepare(ctx context.Context, l Layer, e *Meter, d *Done) (err error) {
	if l.Sections != nil && l.TOC != "" && l.DiffID != "" && l.Size > 0 && !d.Skipped && !p.o.KeepBlobs && p.tx.WantsParts() {
		if d.StagedLayer, err = p.inParts(ctx, l, e); err == nil || ctx.Err() != nil {
			d.Blob = l.Size
			return err
		}
		p.o.Logger.DebugContext(ctx, "the layer is fetched as a whole", "digest", l.Digest, "why", kimg.Line(err))
		e.again()
	}
	body, size, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	if l.Size >= 0 && size >= 0 && size != l.Size {
		return kimg.Errorf(kimg.ErrIntegrity, l.Digest.String(), "size: %d bytes where the manifest says %d", size, l.Size)
	}
	blob := io.TeeReader(streamio.WithContext(ctx, body), e)
	if p.o.KeepBlobs && l.Digest != l.DiffID {
		if d.kept, err = p.tx.SpoolBlob(); err != nil {
			return err
		}
		blob = io.TeeReader(blob, d.kept)
	}
	v, err := streamio.NewVerifier(blob, max(size, l.Size), l.Digest)
	if err != nil {
		return err
	}
	if d.Skipped {
		_, err = streamio.Copy(io.Discard, v)
		return err
	}
	var first prefix
	d.StagedLayer, err = p.tx.Prepare(ctx, store.BlobSource(io.TeeReader(v, &first)))
	switch kimg.ClassOf(err) {
	case "", kimg.ErrInvalid, kimg.ErrUnsafe, kimg.ErrUnsupported, kimg.ErrLimit:
		// The digest is checked at the end. A blob that is not the right one says nothing else of interest.
		if _, verr := streamio.Copy(io.Discard, v); verr != nil {
			err = verr
		}
	}
	if err != nil {
		return err
	}
	if l.DiffID != "" && d.DiffID != l.DiffID {
		return kimg.Errorf(kimg.ErrIntegrity, l.Digest.String(), "diff-id: the layer has %s, the configuration says %s", d.DiffID, l.DiffID)
	}
	d.Blob, d.Compression = e.now.Bytes, compression.Detect(first)
	return nil
}

// place puts the prepared layers on top of each other.
func (p *pipeline) place(ctx context.Context, first int) error {
	parent, chain := "", digest.Digest("")
	for i, d := range p.done {
		if chain == "" {
			chain = d.DiffID
		} else {
			chain = digest.FromString(chain.String() + " " + d.DiffID.String())
		}
		if i >= first {
			d.Labels = map[string]string{labelPrefix + ".ref": chain.String()}
			maps.Copy(d.Labels, p.layers[i].Labels)
			if err := p.tx.Place(ctx, parent, d.StagedLayer); err != nil {
				return kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
			}
		}
		if d.kept != nil && d.Compression != compression.None {
			if err := p.tx.KeepBlob(d.StagedLayer, d.kept, p.layers[i].Digest); err != nil {
				return err
			}
		}
		parent = d.ID
	}
	return nil
}

// labelPrefix begins the annotations of a layer's descriptor that stay with the layer when it is unpacked, as in containerd.
const labelPrefix = "containerd.io/snapshot"

func labels(annotations map[string]string) map[string]string {
	kept := maps.Clone(annotations)
	maps.DeleteFunc(kept, func(key, _ string) bool { return !strings.HasPrefix(key, labelPrefix+"/") })
	return kept
}

func (p *pipeline) tell(e Event) {
	if p.o.Progress != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.o.Progress(e)
	}
}

// prefix keeps the first bytes written to it.
type prefix []byte

func (p *prefix) Write(b []byte) (int, error) {
	*p = append(*p, b[:min(len(b), max(0, 6-len(*p)))]...)
	return len(b), nil
}
