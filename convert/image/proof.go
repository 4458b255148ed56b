package image

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff/rootfs"
)

// readable is a destination whose blobs can be read back before they are published.
type readable interface {
	Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error)
}

// readBack returns the layers of a result as blobs that are read from the destination.
func (j *job) readBack(r *Result) ([]blob, error) {
	back, ok := j.to.(readable)
	if !ok {
		return nil, kimg.Errorf(kimg.ErrUnsupported, label(j.dst), "proof: it cannot be read before it is published")
	}
	blobs := make([]blob, len(r.Layers))
	for i, l := range r.Layers {
		blobs[i] = blob{digest: l.Digest, size: l.Size, open: func(ctx context.Context) (io.ReadCloser, int64, error) {
			return back.Blob(ctx, l.Digest)
		}}
	}
	return blobs, nil
}

// prove compares the merged tree of the source with that of the layers at the destination, read again from both ends.
func (j *job) prove(ctx context.Context, p *picture, r *Result, after []blob) (err error) {
	for i := range p.blobs {
		if p.foreign(i) {
			return kimg.Errorf(kimg.ErrUnsupported, "", "proof: layers[%d] is foreign, its content is not here", i)
		}
	}
	proof := &Proof{}
	if proof.Before, err = tree(ctx, p.blobs); err != nil {
		return err
	}
	if proof.After, err = tree(ctx, after); err != nil {
		return kimg.Wrap(label(j.dst), err)
	}
	if proof.Before != proof.After {
		return kimg.Errorf(kimg.ErrIntegrity, "", "proof: the tree was %s and became %s", proof.Before, proof.After)
	}
	r.Proof = proof
	return nil
}

// tree is the digest of what layers show when they are put on top of each other.
func tree(ctx context.Context, blobs []blob) (digest.Digest, error) {
	var layers []rootfs.Opener
	for _, b := range blobs {
		layers = append(layers, b.plain)
	}
	proof, err := rootfs.Layers(ctx, layers, rootfs.Options{})
	return proof.Digest, err
}

// plain opens a blob as an uncompressed tar, verified while it is read.
func (b blob) plain(ctx context.Context) (io.ReadCloser, error) {
	body, _, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	v, err := streamio.NewVerifier(streamio.WithContext(ctx, body), b.size, b.digest)
	if err != nil {
		body.Close()
		return nil, err
	}
	r, _, err := compression.NewReader(ctx, v)
	if err != nil {
		body.Close()
		return nil, err
	}
	return &twoClosers{r, body}, nil
}

// twoClosers closes a reader and what it reads from.
type twoClosers struct {
	io.ReadCloser
	below io.Closer
}

// Close implements io.Closer.
func (t *twoClosers) Close() error {
	err := t.ReadCloser.Close()
	if cerr := t.below.Close(); err == nil {
		err = cerr
	}
	return err
}
