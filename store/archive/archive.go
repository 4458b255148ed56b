// Package archive reads and writes images that lie in one tar file: an OCI image layout ("oci-archive:") or what docker
// save writes ("docker-archive:"), also as Docker wrote it before 1.10, and files that are both.
//
// # Reading
//
// The archive is somebody else's. A plain tar is indexed once and then read in place; a compressed one (gzip, zstd, bzip2,
// xz) is first unpacked into a temporary file without a name. Links are followed inside the archive only; two members of
// one name are ambiguous and refused, and so is an archive of both kinds whose two descriptions disagree. Documents, members and the index itself are bounded. Blobs are handed out as they
// are: the caller verifies digest and size while it reads.
//
// # Writing
//
// Blobs are staged in a hidden directory beside the archive and verified while they are written, since a tar needs
// sizes first and the same image must give the same bytes, whatever order its blobs come in. Commit writes the tar there, syncs it and
// renames it. Close without Commit leaves nothing; what a killed process leaves is removed by the next one that writes
// to the same directory. A [Bundle], of many images, is written to a stream instead, without staging: its sizes are known.
package archive

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
)

// Options say how an archive is read or written.
type Options struct {
	NoSync  bool   // do not wait until the archive is on disk
	TempDir string // where a compressed archive is unpacked for reading; empty: os.TempDir
}

// Limits of the failure model.
const (
	maxList      = 1 << 20 // bytes of manifest.json and of repositories
	maxIndexFile = 4 << 20 // bytes of index.json
	maxChain     = 500     // layers, and images on one another in an archive of before Docker 1.10
)

// Source is one image of an archive. It is safe for concurrent use.
type Source struct {
	tar      *tarFile
	manifest []byte
	isOCI    bool
	blobs    map[digest.Digest]member // of a docker-archive
}

// open indexes an archive and lets find look for the image in it.
func open(ctx context.Context, path string, o Options, find func(*Source) error) (*Source, error) {
	t, err := openTar(ctx, path, o.TempDir)
	if err != nil {
		return nil, kimg.Wrap(path, err)
	}
	s := newSource(t)
	if err := find(s); err != nil {
		t.close()
		return nil, kimg.Wrap(path, err)
	}
	return s, nil
}

func newSource(t *tarFile) *Source { return &Source{tar: t, blobs: map[digest.Digest]member{}} }

// Manifest returns the bytes of the image's manifest, or of its index. That of a docker-archive is made from what the
// archive says: the same bytes every time.
func (s *Source) Manifest(ctx context.Context) ([]byte, error) {
	return s.manifest, context.Cause(ctx)
}

// ManifestByDigest returns the manifest of one instance of the image's index, checked against d.
func (s *Source) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m, err := s.locate(d)
	if err != nil {
		return nil, err
	}
	return s.tar.document(m, d)
}

// Blob opens a blob and tells its size. The bytes are not verified. The caller closes the reader, before the source.
func (s *Source) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, 0, err
	}
	m, err := s.locate(d)
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(s.tar.reader(m)), m.size, nil
}

func (s *Source) locate(d digest.Digest) (member, error) {
	if err := strict.Digest(d.String()); err != nil {
		return member{}, err
	}
	if s.isOCI {
		return s.tar.findBlob(d)
	}
	m, ok := s.blobs[d]
	if !ok {
		return member{}, missing(d)
	}
	return m, nil
}

func missing(d digest.Digest) error {
	return kimg.Errorf(kimg.ErrNotFound, d.String(), "blob-missing: not in the archive")
}

// Close releases the archive.
func (s *Source) Close() error { return s.tar.close() }
