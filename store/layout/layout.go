// Package layout reads and writes images that lie in a directory: an OCI image layout ("oci:") or the form in which
// containers/image keeps one image ("dir:"). It moves bytes and names; what the documents mean is for package convert.
//
// # Reading
//
// Everything below the directory is somebody else's: only regular files are opened, never through a link, never
// blocking. Documents are bounded. Blobs are handed out as they are: the caller verifies digest and size while it reads.
//
// # Writing
//
// Blobs are staged in a hidden directory inside the destination and verified while they are written. Nothing is visible
// before Commit, which syncs the blobs, gives them their names, and writes the document that names the image last, by a
// rename. A Commit that fails takes back what it did; Close without Commit removes everything that was made, also
// directories above the destination. What a killed process leaves is removed by the next one that writes there.
package layout

import (
	"context"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
)

// Options say how an image is written.
type Options struct {
	NoSync   bool      // do not wait until the image is on disk
	Verified *Verified // what is known of blobs from writing other images; nil: nothing
}

// openRoot opens the directory that somebody named; links in path are followed.
func openRoot(path string) (*os.File, error) {
	root, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat()
	if err == nil && !info.IsDir() {
		err = kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: not a directory")
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// openBlob opens a blob and tells its size.
func openBlob(root *os.File, d digest.Digest, name string) (io.ReadCloser, int64, error) {
	f, err := safeopen.OpenIn(root, name)
	if err != nil {
		return nil, 0, missing(d, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readDocument reads a document and checks it against the digest that named it.
func readDocument(ctx context.Context, root *os.File, name string, d digest.Digest) ([]byte, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	data, err := readBounded(root, name)
	if err != nil {
		return nil, missing(d, err)
	}
	return data, streamio.Check(data, d)
}

// readBounded reads a document that is no larger than any document may be.
func readBounded(root *os.File, name string) ([]byte, error) {
	data, err := safeopen.ReadIn(root, name, strict.MaxDocument)
	if kimg.ClassOf(err) == kimg.ErrLimit {
		return nil, kimg.Errorf(kimg.ErrLimit, name, "too-big: more than %d bytes", strict.MaxDocument)
	}
	return data, err
}

// missing gives the absence of a blob its reason.
func missing(d digest.Digest, err error) error {
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return kimg.Errorf(kimg.ErrNotFound, d.String(), "blob-missing: %w", err)
	}
	return kimg.Wrap(d.String(), err)
}
