package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/strict"
)

// Names and content of the files of a dir: image, besides the blobs (containers/image, directory transport 1.1).
const (
	dirManifest = "manifest.json"
	dirVersion  = "version"
	versionText = versionStart + "1\n"

	versionStart = "Directory Transport Version: 1."
)

// Bounds of the signature files of one image.
const (
	maxSignatures     = 100
	maxSignatureBytes = 16 << 20 // all together
)

// DirSource is an image in a dir: directory. It is safe for concurrent use.
type DirSource struct {
	root     *os.File
	manifest []byte
}

// OpenDir opens the image in a dir: directory. Class notfound when there is none. The caller closes it.
func OpenDir(path string) (*DirSource, error) {
	s, err := openDir(path)
	return s, kimg.Wrap(path, err)
}

func openDir(path string) (*DirSource, error) {
	root, err := openRoot(path)
	if err != nil {
		return nil, err
	}
	s := &DirSource{root: root}
	version, err := safeopen.ReadIn(root, dirVersion, 1024)
	switch {
	case err == nil && !strings.HasPrefix(string(version), versionStart):
		err = kimg.Errorf(kimg.ErrUnsupported, dirVersion, "a version of the directory that is not known")
	case errors.Is(err, fs.ErrNotExist): // early versions wrote none
		err = nil
	}
	if err == nil {
		s.manifest, err = readBounded(root, dirManifest)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

// Manifest returns the bytes of the image's manifest, or of its index.
func (s *DirSource) Manifest(ctx context.Context) ([]byte, error) {
	return s.manifest, context.Cause(ctx)
}

// ManifestByDigest returns the manifest of one instance of the image's index, checked against d.
func (s *DirSource) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	if err := strict.Digest(d.String()); err != nil {
		return nil, err
	}
	return readDocument(ctx, s.root, d.Encoded()+"."+dirManifest, d)
}

// Signatures returns the signatures kept beside the manifest, or beside that of an instance of the index unless that is empty, in order
// and as the files have them.
func (s *DirSource) Signatures(ctx context.Context, instance digest.Digest) ([][]byte, error) {
	if instance != "" {
		if err := strict.Digest(instance.String()); err != nil {
			return nil, err
		}
	}
	var all [][]byte
	for total := 0; ; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		name := signatureFile(instance, len(all)+1)
		sig, err := readBounded(s.root, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return all, nil
		case err != nil:
			return nil, err
		}
		if total += len(sig); len(all) == maxSignatures || total > maxSignatureBytes {
			return nil, kimg.Errorf(kimg.ErrLimit, name, "too-big: more than %d signatures or %d bytes of them", maxSignatures, maxSignatureBytes)
		}
		all = append(all, sig)
	}
}

// signatureFile is the file of the n-th signature of a manifest, from 1.
func signatureFile(instance digest.Digest, n int) string {
	name := fmt.Sprintf("signature-%d", n)
	if instance != "" {
		name = instance.Encoded() + "." + name
	}
	return name
}

// Blob opens a blob and tells its size. The bytes are not verified. The caller closes the reader.
func (s *DirSource) Blob(ctx context.Context, d digest.Digest) (r io.ReadCloser, size int64, err error) {
	if err := errors.Join(strict.Digest(d.String()), context.Cause(ctx)); err != nil {
		return nil, 0, err
	}
	return openBlob(s.root, d, d.Encoded())
}

// Close releases the directory. Readers that are open stay usable.
func (s *DirSource) Close() error { return s.root.Close() }
