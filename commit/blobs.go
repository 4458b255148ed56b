package commit

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/chunked"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// uploads is how many layers go to a registry at a time when nobody says otherwise.
const uploads = 6

// copy puts the blobs of the image at the place, in the form it wants: the layers side by side, then the configuration. What is there
// already stays.
func (c *oneCopy) copy(ctx context.Context, src *source, m *maker, o Options, co CopyOptions) error {
	src, err := src.in(ctx, c.form, m, c.recipe(co))
	if err != nil {
		return err
	}
	layers := make([]layerdiff.Source, len(src.offers))
	for i, l := range src.offers {
		layers[i] = layerdiff.Source{DiffID: l.diffID, Write: func(ctx context.Context, _ io.Writer) (layerdiff.Blob, error) {
			return layerdiff.Blob{}, c.layer(ctx, m, l, co)
		}}
	}
	jobs := o.Jobs
	if c.remote != nil {
		jobs = cmp.Or(jobs, uploads)
	}
	_, err = layerdiff.WriteAll(ctx, layers, func(ctx context.Context, i int) (io.WriteCloser, error) {
		if c.algo == layerdiff.ZstdChunked { // nobody knows yet what it comes to
			return nothing{io.Discard}, nil
		}
		l := src.offers[i]
		if there, err := c.has(ctx, l.digest(), l.size()); err != nil || there {
			return nil, err
		}
		return nothing{io.Discard}, nil
	}, jobs)
	if err == nil && c.algo == layerdiff.ZstdChunked {
		err = src.rename()
	}
	if err != nil {
		return err
	}
	c.steps.begin(StepConfig)
	c.manifest = src.docs.manifest
	config, size := digest.FromBytes(src.docs.config), int64(len(src.docs.config))
	there, err := c.has(ctx, config, size)
	if err == nil && !there {
		_, _, err = c.put(ctx, config, size, func() io.ReadCloser { return io.NopCloser(bytes.NewReader(src.docs.config)) }, nil)
	}
	return err
}

// nothing is where a layer goes that is written elsewhere.
type nothing struct{ io.Writer }

// Close implements io.Closer.
func (nothing) Close() error { return nil }

// layer puts a layer that is not there. zstd:chunked is written by containers/image, while it is copied.
func (c *oneCopy) layer(ctx context.Context, m *maker, l *offer, co CopyOptions) (err error) {
	step := c.steps.layer(l.digest().String(), l.size())
	defer func() { step.end(err) }()
	if c.algo != layerdiff.ZstdChunked {
		_, _, err = c.put(ctx, l.digest(), l.size(), func() io.ReadCloser { return m.read(ctx, l) }, step)
		return err
	}
	var toc map[string]string
	open := func() io.ReadCloser {
		toc = map[string]string{}
		return streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error {
			z, err := chunked.New(w, co.Level, toc)
			if err != nil {
				return err
			}
			err = m.write(ctx, l, z)
			if cerr := z.Close(); err == nil { // also after an error: that ends its goroutines
				err = cerr
			}
			return err
		})
	}
	blob := store.KnownBlob{DiffID: l.diffID, Algorithm: string(layerdiff.Zstd)}
	if blob.Digest, blob.Size, err = c.put(ctx, "", -1, open, step); err == nil {
		l.blob, l.toc = blob, toc
	}
	return err
}

// rename writes the documents anew, for layers whose form was not known before they were put.
func (s *source) rename() (err error) {
	for i, l := range s.offers {
		if l.blob.Digest == "" { // equal to one before it
			first := s.offers[slices.IndexFunc(s.offers[:i], func(o *offer) bool { return o.diffID == l.diffID })]
			l.blob, l.toc = first.blob, first.toc
		}
	}
	s.docs, err = s.plan.documents(s.blob, s.offers)
	return err
}
