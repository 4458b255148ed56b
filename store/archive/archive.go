// Package archive reads and writes images that lie in one tar file: an OCI image layout ("oci-archive:") or what
// docker save writes ("docker-archive:"), also as Docker wrote it before 1.10.
package archive

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// Options say how an archive is read or written.
type Options struct {
	NoSync  bool   // do not wait until the archive is on disk
	TempDir string // where a compressed archive is unpacked for reading; empty: the default of os.TempDir
}

// Source is one image of an archive. It is safe for concurrent use.
type Source struct{}

// OpenOCI opens the image called name in an oci-archive, as layout.OpenOCI does.
func OpenOCI(ctx context.Context, path, name string, o Options) (*Source, error) {
	return nil, unfinished()
}

// OpenDocker opens an image of a docker-archive: ref is name:tag, "@N", or "" for the only one.
func OpenDocker(ctx context.Context, path, ref string, o Options) (*Source, error) {
	return nil, unfinished()
}

// Manifest returns the image's manifest.
func (s *Source) Manifest(ctx context.Context) ([]byte, error) { return nil, unfinished() }

// ManifestByDigest returns the manifest of one instance of the image's index.
func (s *Source) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	return nil, unfinished()
}

// Signatures returns none.
func (s *Source) Signatures(ctx context.Context) ([][]byte, error) { return nil, nil }

// Blob opens a blob.
func (s *Source) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	return nil, 0, unfinished()
}

// Close releases the archive.
func (s *Source) Close() error { return nil }

// Destination is an archive being written. Put and Has are safe for concurrent use.
type Destination struct{}

// CreateOCI prepares to write an oci-archive.
func CreateOCI(ctx context.Context, path, name string, o Options) (*Destination, error) {
	return nil, unfinished()
}

// CreateDocker prepares to write a docker-archive.
func CreateDocker(ctx context.Context, path string, names []string, o Options) (*Destination, error) {
	return nil, unfinished()
}

// Has reports whether a blob is staged already.
func (d *Destination) Has(ctx context.Context, want digest.Digest, size int64) (bool, error) {
	return false, unfinished()
}

// Put stages a blob.
func (d *Destination) Put(ctx context.Context, want digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	return "", 0, unfinished()
}

// Commit writes the archive.
func (d *Destination) Commit(ctx context.Context, manifest []byte, mediaType string) error {
	return unfinished()
}

// Close without Commit removes everything that was made.
func (d *Destination) Close() error { return nil }

func unfinished() error { return kimg.Errorf(kimg.ErrUnsupported, "", "not written yet") }
