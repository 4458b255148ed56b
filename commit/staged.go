package commit

import (
	"context"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/registry"
)

// destination is a place in the file system: the image appears when it is committed, and until Close that can be undone.
type destination interface {
	Has(ctx context.Context, d digest.Digest, size int64) (bool, error)
	Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error)
	File() (*os.File, error)
	Keep(f *os.File, d digest.Digest, size int64) error
	Commit(ctx context.Context, manifest []byte, mediaType string) error
	TakeBack(ctx context.Context) error
	Close() error
}

// staged is what one place holds before anything is published there: blobs, and the manifest to come. One of to and remote is there.
type staged struct {
	to       destination
	remote   *registry.Destination
	steps    *steps
	manifest []byte
}

// has tells whether a blob is at the place already.
func (s *staged) has(ctx context.Context, d digest.Digest, size int64) (there bool, err error) {
	if s.to != nil {
		return s.to.Has(ctx, d, size)
	}
	return s.remote.Has(ctx, d, size)
}

// put puts a blob at the place, and checks it. Without a digest it is whatever comes, and size is -1. A registry that fails for a while gets
// it again, opened anew. The layer may be nil.
func (s *staged) put(ctx context.Context, d digest.Digest, size int64, open func() io.ReadCloser, layer *layerStep) (is digest.Digest, came int64, err error) {
	var before *counted
	once := func(to func(context.Context, digest.Digest, int64, io.Reader) (digest.Digest, int64, error)) error {
		before.forget()
		r := open()
		defer r.Close()
		before = &counted{Reader: r, steps: s.steps, layer: layer}
		is, came, err = to(ctx, d, size, before)
		return err
	}
	if s.to != nil {
		err = once(s.to.Put)
	} else {
		err = s.remote.Resend(ctx, func() error { return once(s.remote.Put) })
	}
	return is, came, err
}

// publish makes the image appear.
func (s *staged) publish(ctx context.Context, mediaType string) error {
	if s.to != nil {
		return s.to.Commit(ctx, s.manifest, mediaType)
	}
	err := s.remote.PutManifest(ctx, "", s.manifest)
	if err == nil {
		err = (*s.remote.Now()).Commit(ctx, nil)
	}
	return err
}
