package archive

import (
	"bytes"
	"context"
	"maps"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/store/layout"
)

// OCIDestination is an oci-archive being written. It can hold an index.
type OCIDestination struct{ *Destination }

// CreateOCI prepares to write an oci-archive with one image called name, which may be empty. Something at path already is
// class exists, unless it is an empty file. The caller closes the destination.
func CreateOCI(ctx context.Context, path, name string, o Options) (OCIDestination, error) {
	err := layout.CheckName(name)
	if err == nil {
		var d *Destination
		if d, err = create(ctx, path, ociForm{name}, o); err == nil {
			return OCIDestination{d}, nil
		}
	}
	return OCIDestination{}, kimg.Wrap(path, err)
}

// PutManifest stages the manifest of one instance of the index that will be committed.
func (d OCIDestination) PutManifest(ctx context.Context, want digest.Digest, manifest []byte) error {
	_, _, err := d.Put(ctx, want, int64(len(manifest)), bytes.NewReader(manifest))
	return err
}

type ociForm struct{ name string }

// write puts the documents first, so that a reader of the stream knows what follows, then the blobs by their names.
func (f ociForm) write(w *tarWriter, area *staging.Area, manifest []byte, mediaType string) error {
	d, size, err := area.Put(w.ctx, "", -1, bytes.NewReader(manifest))
	if err != nil {
		return err
	}
	index, err := layout.Replace(nil, f.name, ispec.Descriptor{MediaType: mediaType, Digest: d, Size: size})
	if err == nil {
		_, err = layout.Select(index, f.name) // what could not be read is not written
	}
	if err != nil {
		return err
	}
	w.bytes(ispec.ImageLayoutFile, layout.Version())
	w.bytes(ispec.ImageIndexFile, index)
	w.dir(ispec.ImageBlobsDir)
	blobs := area.Blobs()
	last := ""
	for _, blob := range slices.Sorted(maps.Keys(blobs)) {
		name := layout.BlobPath(blob)
		if dir := path.Dir(name); dir != last {
			w.dir(dir)
			last = dir
		}
		w.file(name, area.Path(blob), blobs[blob])
	}
	return w.err
}
