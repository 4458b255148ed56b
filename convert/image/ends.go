package image

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Source is one named image at a place. Its methods may be called at the same time.
type Source interface {
	// Manifest returns the manifest the name leads to; it may be an index.
	Manifest(ctx context.Context) ([]byte, error)
	// ManifestByDigest returns the manifest of an image of the index, checked against its digest.
	ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error)
	// Blob returns the bytes of a blob, not verified yet, and their number. Class notfound ("blob-missing") when it is not
	// there. The caller closes the reader.
	Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error)
	Close() error
}

// Destination is a place where one image appears when it is committed, and nothing before.
type Destination interface {
	// Has reports whether a blob with this digest and size is there, staged or published, and is known to be good.
	Has(ctx context.Context, d digest.Digest, size int64) (bool, error)
	// Put stages a blob. An empty digest and a negative size are not known yet; a wrong one is class integrity. It returns
	// what was written. It may be called at the same time for several blobs.
	Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error)
	// Commit publishes the image: everything staged, then the manifest under the destination's name.
	Commit(ctx context.Context, manifest []byte, mediaType string) error
	// Close takes back what was not committed.
	Close() error
}

// indexDestination is a destination that can hold an index: the manifests of its images are put before it is committed.
type indexDestination interface {
	PutManifest(ctx context.Context, d digest.Digest, manifest []byte) error
}
