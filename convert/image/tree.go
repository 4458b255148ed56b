package image

import (
	"cmp"
	"context"
	"io"
	"os"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/rootfs"
)

// WriteTree writes the file tree that an image anywhere shows as an uncompressed tar, see [rootfs.Write]. Every blob is read once and verified,
// digest, size and diff ID, before the first byte is written; temp is for the content until then. Of an index the image for Options.Platform is
// taken, nil: for this machine.
func (c *Converter) WriteTree(ctx context.Context, ref types.ImageReference, w io.Writer, temp *os.File) (layerdiff.Blob, error) {
	blob, err := c.writeTree(ctx, ref, w, temp)
	return blob, kimg.Wrap(label(ref), err)
}

func (c *Converter) writeTree(ctx context.Context, ref types.ImageReference, w io.Writer, temp *os.File) (layerdiff.Blob, error) {
	src, err := c.openSource(ctx, ref, "")
	if err != nil {
		return layerdiff.Blob{}, err
	}
	defer src.Close()
	j := &job{Converter: c, src: ref, from: src}
	manifest, err := src.Manifest(ctx)
	if err == nil && convert.IsIndex(manifest, "") {
		manifest, _, err = j.choose(ctx, manifest, cmp.Or(c.o.Platform, thisMachine()))
	}
	if err != nil {
		return layerdiff.Blob{}, err
	}
	p, err := j.readPicture(ctx, src, manifest)
	if err != nil {
		return layerdiff.Blob{}, err
	}
	layers := make([]rootfs.Opener, len(p.blobs))
	for i, b := range p.blobs {
		if p.foreign(i) {
			return layerdiff.Blob{}, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: layers[%d] is foreign; it is not fetched", i)
		}
		layers[i] = func(ctx context.Context) (io.ReadCloser, error) { return p.plain(ctx, i, b) }
	}
	return rootfs.Write(ctx, w, temp, layers, rootfs.Options{})
}

// plain opens a layer as an uncompressed tar, and checks its diff ID as well when it has one.
func (p *picture) plain(ctx context.Context, i int, b blob) (io.ReadCloser, error) {
	r, err := b.plain(ctx)
	if err != nil || i >= len(p.diffIDs) {
		return r, err
	}
	v, err := streamio.NewVerifier(r, -1, p.diffIDs[i])
	if err != nil {
		r.Close()
		return nil, err
	}
	return &twoClosers{io.NopCloser(v), r}, nil
}
