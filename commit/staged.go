package commit

import (
	"context"
	"io"
	"os"

	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/regerror"
	"github.com/kimg/kimg/internal/streamio"
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
	remote   types.ImageDestination
	patience regerror.Patience // with it
	steps    *steps
	manifest []byte
}

// has tells whether a blob is at the place already.
func (s *staged) has(ctx context.Context, d digest.Digest, size int64) (there bool, err error) {
	if s.to != nil {
		return s.to.Has(ctx, d, size)
	}
	err = s.patience.Ask(ctx, func(ctx context.Context) (err error) {
		there, _, err = s.remote.TryReusingBlob(ctx, types.BlobInfo{Digest: d, Size: size}, none.NoCache, false)
		return err
	})
	return there, err
}

// put puts a blob at the place, and checks it. Without a digest it is whatever comes, and size is -1. The layer may be nil.
func (s *staged) put(ctx context.Context, d digest.Digest, size int64, r io.Reader, layer *layerStep) (digest.Digest, int64, error) {
	r = s.steps.count(r, layer)
	if s.to != nil {
		return s.to.Put(ctx, d, size, r)
	}
	if d != "" {
		v, err := streamio.NewVerifier(r, size, d)
		if err != nil {
			return "", 0, err
		}
		r = v
	}
	info, err := s.patience.Send(ctx, s.remote, r, types.BlobInfo{Digest: d, Size: size}, none.NoCache)
	return info.Digest, info.Size, regerror.Classify(err)
}

// publish makes the image appear.
func (s *staged) publish(ctx context.Context, mediaType string) error {
	if s.to != nil {
		return s.to.Commit(ctx, s.manifest, mediaType)
	}
	return s.patience.Ask(ctx, func(ctx context.Context) error {
		err := s.remote.PutManifest(ctx, s.manifest, nil)
		if err == nil {
			err = s.remote.Commit(ctx, nil)
		}
		return err
	})
}
