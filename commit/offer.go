package commit

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"

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

	blob store.KnownBlob   // the compressed form; no Digest: it is offered uncompressed
	toc  map[string]string // annotations that speak of the compressed form
	file *os.File          // what is offered; nil: it is made when somebody wants it
}

// digest is that of the blob in the image.
func (o *offer) digest() digest.Digest { return cmp.Or(o.blob.Digest, o.diffID) }

func (o *offer) size() int64 {
	if o.blob.Digest != "" {
		return o.blob.Size
	}
	return o.plain
}

// remembered finds a compressed form that a layer remembers, of one tar or of any; nil: there is none.
func (m *maker) remembered(ctx context.Context, layer string, r recipe, diffID digest.Digest) (*store.KnownBlob, error) {
	known, err := m.st.KnownBlobs(ctx, layer)
	for _, b := range known {
		if b.Algorithm == string(r.algo) && b.Level == r.level && (diffID == "" || b.DiffID == diffID) && !m.wrong(layer, b) {
			return &b, err
		}
	}
	return nil, err
}

// file finds a layer that lies in a file already, as a recipe says; nil: there is none.
func (m *maker) file(diffID digest.Digest, r recipe) *madeBlob {
	for i, b := range m.made {
		if b.DiffID == diffID && b.Algorithm == string(r.algo) && b.Level == r.level {
			return &m.made[i]
		}
	}
	return nil
}

// use offers the file of a layer, if there is one.
func (m *maker) use(o *offer, r recipe) bool {
	b := m.file(o.diffID, r)
	if b == nil {
		return false
	}
	if o.file = b.file; r.algo != layerdiff.NoCompression {
		o.blob = b.KnownBlob
	}
	return true
}

// write writes a layer uncompressed, from its file when there is one.
func (m *maker) write(ctx context.Context, o *offer, w io.Writer) error {
	if b := m.file(o.diffID, recipe{}); b != nil {
		_, err := streamio.Copy(w, streamio.WithContext(ctx, io.NewSectionReader(b.file, 0, b.Size)))
		return err
	}
	return o.write(ctx, w)
}

// read returns the blob of an offer. One that is only remembered is made again, and must come out the same.
func (m *maker) read(ctx context.Context, o *offer) io.ReadCloser {
	switch {
	case o.file != nil:
		return io.NopCloser(io.NewSectionReader(o.file, 0, o.size()))
	case o.blob.Digest == "":
		return streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error { return m.write(ctx, o, w) })
	}
	return streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error {
		sum := &promised{streamio.NewMeter(w), o.blob.Size}
		z, err := layerdiff.Compress(sum, layerdiff.Compression(o.blob.Algorithm), o.blob.Level, m.o.Jobs)
		if err != nil {
			return err
		}
		err = m.write(ctx, o, z)
		if cerr := z.Close(); err == nil { // also after an error: that ends its goroutines
			err = cerr
		}
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
