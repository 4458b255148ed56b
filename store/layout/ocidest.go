package layout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/staging"
)

// CreateOCI prepares to write an image called name into the OCI image layout path, which may be absent, empty or a
// layout with other images; name may be empty. What name meant before is dropped from the index by Commit, everything
// else stays. Several processes may write different names at the same time. Anything else at path is class exists. The
// caller closes the destination.
func CreateOCI(ctx context.Context, path, name string, o Options) (*Destination, error) {
	err := CheckName(name)
	if err == nil {
		var d *Destination
		if d, err = create(ctx, path, ociForm{name}, o); err == nil {
			return d, nil
		}
	}
	return nil, kimg.Wrap(path, err)
}

type ociForm struct{ name string }

func (ociForm) blob(d digest.Digest, _ bool) string { return BlobPath(d) }

func (ociForm) document() string { return ispec.ImageIndexFile }

func (ociForm) check(root *os.File) error {
	index, err := readIndex(root)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(root.Name(), ispec.ImageLayoutFile)); index == nil && errors.Is(err, fs.ErrNotExist) {
		return kimg.Errorf(kimg.ErrExists, "", "the directory is not empty and not an OCI layout")
	}
	if err := checkLayout(root); err != nil || index == nil {
		return err
	}
	_, err = parseIndex(index)
	return kimg.Wrap(ispec.ImageIndexFile, err)
}

// readIndex returns nil when there is none.
func readIndex(root *os.File) ([]byte, error) {
	index, err := readBounded(root, ispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return index, err
}

func (f ociForm) publish(ctx context.Context, d *Destination, p *staging.Publisher, manifest []byte, mediaType string) error {
	desc := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	if err := checkEntry(desc); err != nil {
		return err
	}
	index, err := readIndex(d.root)
	if err == nil {
		index, err = Replace(index, f.name, desc)
	}
	if err != nil {
		return err
	}
	layout := filepath.Join(d.path, ispec.ImageLayoutFile)
	if _, err := os.Lstat(layout); errors.Is(err, fs.ErrNotExist) { // first: a killed process must leave what the next one knows
		if err := p.Write(layout, Version()); err != nil {
			return err
		}
	}
	dirs := []string{filepath.Join(d.path, ispec.ImageBlobsDir), filepath.Join(d.path, ispec.ImageBlobsDir, string(digest.SHA256))}
	for blob := range d.area.Blobs() {
		if dir := filepath.Join(d.path, filepath.Dir(BlobPath(blob))); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		if err := p.Dir(dir); err != nil {
			return err
		}
	}
	if err := d.placeBlobs(ctx, p); err != nil {
		return err
	}
	if err := p.Write(filepath.Join(d.path, BlobPath(desc.Digest)), manifest); err != nil {
		return err
	}
	if err := p.SyncDirs(append(dirs, d.path)...); err != nil {
		return err
	}
	if err := p.Write(filepath.Join(d.path, ispec.ImageIndexFile), index); err != nil {
		return err
	}
	return p.SyncDirs(d.path)
}
