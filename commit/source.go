package commit

import (
	"bytes"
	"context"
	"io"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/layerdiff"
)

// source is one image of a container: its documents, and the layers produced when they are asked for.
type source struct {
	ref  *containerRef // for [Reference]
	plan *plan
	blob layerdiff.Blob // the new layer, as the first pass hashed it
	docs documents

	offers []*offer // base first, the new layer last
	maker  *maker
	end    func() // what goes with it; may be nil
}

// source makes the pass that learns the new layer's digest and puts it down, and writes the documents of the uncompressed image.
func (r *containerRef) source(ctx context.Context, m *maker, how recipe) (s *source, err error) {
	p, err := open(ctx, r.st, r.id, r.o)
	if err != nil {
		return nil, err
	}
	opened := false // also after a panic
	defer func() {
		if !opened {
			p.close()
		}
	}()
	if err := measure(ctx, p.st, p.base, p.o.Jobs); err != nil {
		return nil, err
	}
	s = &source{ref: r, plan: p, end: p.close}
	step := how.steps.layer(NewLayer, -1)
	p.moved = step.reached
	s.blob, err = m.newest(ctx, p.container.LayerID, how, p.writeNewest)
	if step.end(err); err != nil {
		return nil, kimg.Wrap(p.container.Name, err)
	}
	if s.docs, err = p.documents(s.blob, nil); err != nil {
		return nil, kimg.Wrap(p.container.Name, err)
	}
	opened = true
	return s, nil
}

// in returns the same image in another format and with its layers as they are offered: the configuration is the same in all.
func (s *source) in(ctx context.Context, f convert.Format, m *maker, how recipe) (*source, error) {
	p := *s.plan
	p.o.Format, p.moved = f, nil
	out := &source{ref: s.ref, plan: &p, blob: s.blob, maker: m}
	for _, l := range p.base {
		out.offers = append(out.offers, &offer{layer: l.ID, diffID: l.DiffID, plain: l.Size, write: func(ctx context.Context, w io.Writer) error {
			return p.st.ExportLayer(ctx, l.ID, w)
		}})
	}
	if !s.blob.Empty {
		out.offers = append(out.offers, &offer{layer: p.container.LayerID, diffID: s.blob.DiffID, plain: s.blob.Size, write: out.writeNewest})
	}
	if err := m.prepare(ctx, out.offers, how); err != nil {
		return nil, err
	}
	docs, err := p.documents(s.blob, out.offers)
	out.docs = docs
	return out, err
}

// Reference implements types.ImageSource.
func (s *source) Reference() types.ImageReference { return s.ref }

// Close implements types.ImageSource.
func (s *source) Close() error {
	if s.end != nil {
		s.end()
	}
	return nil
}

// GetManifest implements types.ImageSource.
func (s *source) GetManifest(_ context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance != nil {
		return nil, "", kimg.Errorf(kimg.ErrNotFound, instance.String(), "a container is one image, not a list")
	}
	return s.docs.manifest, s.docs.manifestType, nil
}

// GetSignatures implements types.ImageSource: a container has none.
func (s *source) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) { return nil, nil }

// LayerInfosForCopy implements types.ImageSource: the manifest's layers are what is offered.
func (s *source) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}

// HasThreadSafeGetBlob implements types.ImageSource: layers may be read side by side.
func (s *source) HasThreadSafeGetBlob() bool { return true }

// GetBlob implements types.ImageSource. A layer is produced while it is read; closing the reader stops that.
func (s *source) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if info.Digest == digest.FromBytes(s.docs.config) {
		return io.NopCloser(bytes.NewReader(s.docs.config)), int64(len(s.docs.config)), nil
	}
	for _, o := range s.offers {
		if o.digest() == info.Digest {
			return s.maker.read(ctx, o), o.size(), nil
		}
	}
	return nil, 0, kimg.Errorf(kimg.ErrNotFound, info.Digest.String(), "the image has no such blob")
}

// writeNewest reads the container again, and fails when it is not what was hashed.
func (s *source) writeNewest(ctx context.Context, w io.Writer) error {
	got, err := s.plan.writeNewest(ctx, w)
	if err != nil {
		return err
	}
	if got.DiffID != s.blob.DiffID || got.Size != s.blob.Size {
		return kimg.Errorf(kimg.ErrBusy, s.plan.container.Name,
			"the container changed while it was read; commit it again when nothing writes to it")
	}
	return nil
}
