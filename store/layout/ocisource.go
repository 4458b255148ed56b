package layout

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/strict"
)

// OCISource is one image of an OCI image layout. It is safe for concurrent use.
type OCISource struct {
	root *os.File
	desc ispec.Descriptor
}

// OpenOCI opens the image called name in an OCI image layout: its org.opencontainers.image.ref.name, "@N" for the N-th
// entry of the index, or "" for the only one. Class notfound when the name is not there; class invalid when it is empty
// and there are several. The caller closes it.
func OpenOCI(path, name string) (*OCISource, error) {
	return openOCI(path, func(root *os.File) (ispec.Descriptor, error) {
		index, err := readBounded(root, ispec.ImageIndexFile)
		if err != nil {
			return ispec.Descriptor{}, err
		}
		return Select(index, name)
	})
}

// OpenImage opens one of the [Images] of an OCI image layout, whose index is not read again. The caller closes it.
func OpenImage(path string, i Image) (*OCISource, error) {
	return openOCI(path, func(*os.File) (ispec.Descriptor, error) { return i.Descriptor, i.Check() })
}

func openOCI(path string, find func(root *os.File) (ispec.Descriptor, error)) (*OCISource, error) {
	root, err := openRoot(path)
	if err != nil {
		return nil, kimg.Wrap(path, err)
	}
	s := &OCISource{root: root}
	if err = checkLayout(root); err == nil {
		s.desc, err = find(root)
	}
	if err != nil {
		root.Close()
		return nil, kimg.Wrap(path, err)
	}
	return s, nil
}

// checkLayout reads the oci-layout file (OCI image layout, "oci-layout file"). Some writers leave it out.
func checkLayout(root *os.File) error {
	data, err := safeopen.ReadIn(root, ispec.ImageLayoutFile, 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return CheckVersion(data)
}

// CheckVersion checks the content of an oci-layout file: class unsupported unless it announces version 1.0.0.
func CheckVersion(data []byte) error {
	var l ispec.ImageLayout
	if err := strict.UnmarshalExact(data, &l); err != nil {
		return kimg.Wrap(ispec.ImageLayoutFile, err)
	}
	if l.Version != ispec.ImageLayoutVersion {
		return kimg.Errorf(kimg.ErrUnsupported, ispec.ImageLayoutFile, "layout version %s", kimg.Quote(l.Version))
	}
	return nil
}

// Version returns the content of an oci-layout file.
func Version() []byte {
	data, _ := json.Marshal(ispec.ImageLayout{Version: ispec.ImageLayoutVersion}) // a constant
	return data
}

// BlobPath is where a layout keeps a blob, slash-separated. The digest must have been checked.
func BlobPath(d digest.Digest) string {
	return ispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// Descriptor returns the entry of index.json that names the image.
func (s *OCISource) Descriptor() ispec.Descriptor { return s.desc }

// Manifest returns the bytes of the image's manifest, or of its index, checked against the entry of index.json.
func (s *OCISource) Manifest(ctx context.Context) ([]byte, error) {
	data, err := s.ManifestByDigest(ctx, s.desc.Digest)
	if err == nil {
		err = CheckSize(s.desc, int64(len(data)))
	}
	return data, err
}

// CheckSize refuses content that does not have the size its descriptor says, class integrity.
func CheckSize(desc ispec.Descriptor, size int64) error {
	if desc.Size == size {
		return nil
	}
	return kimg.Errorf(kimg.ErrIntegrity, desc.Digest.String(), "size: %d bytes, the descriptor says %d", size, desc.Size)
}

// ManifestByDigest returns the manifest of one instance of the image's index, checked against d.
func (s *OCISource) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	if err := strict.Digest(d.String()); err != nil {
		return nil, err
	}
	return readDocument(ctx, s.root, BlobPath(d), d)
}

// Blob opens a blob and tells its size. The bytes are not verified. The caller closes the reader.
func (s *OCISource) Blob(ctx context.Context, d digest.Digest) (r io.ReadCloser, size int64, err error) {
	if err := errors.Join(strict.Digest(d.String()), context.Cause(ctx)); err != nil {
		return nil, 0, err
	}
	return openBlob(s.root, d, BlobPath(d))
}

// Close releases the directory. Readers that are open stay usable.
func (s *OCISource) Close() error { return s.root.Close() }
