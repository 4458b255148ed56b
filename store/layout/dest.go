package layout

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// Destination is an image being written into a directory. Put and Has are safe for concurrent use.
type Destination struct{}

// CreateDir prepares to write a dir: image.
func CreateDir(ctx context.Context, path string, o Options) (*Destination, error) {
	return nil, unfinished()
}

// CreateOCI prepares to write an image into an OCI image layout.
func CreateOCI(ctx context.Context, path, name string, o Options) (*Destination, error) {
	return nil, unfinished()
}

// Has reports whether a blob is there already and good.
func (d *Destination) Has(ctx context.Context, want digest.Digest, size int64) (bool, error) {
	return false, unfinished()
}

// Put stages a blob.
func (d *Destination) Put(ctx context.Context, want digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	return "", 0, unfinished()
}

// Commit publishes the image.
func (d *Destination) Commit(ctx context.Context, manifest []byte, mediaType string) error {
	return unfinished()
}

// Close without Commit removes everything that was made.
func (d *Destination) Close() error { return nil }

func unfinished() error { return kimg.Errorf(kimg.ErrUnsupported, "", "not written yet") }
