package image

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store/transfer"
)

// maxKept is how much of an index is kept as data, in bytes of one blob (failure model).
const maxKept = 64 << 20

func isIndex(manifest []byte) bool { return convert.IsIndex(manifest, "") }

// readIndex reads the documents of every image of an index. One that is not there, or cannot be read, does not keep the others away.
func (l *loader) readIndex(ctx context.Context, j *job, index []byte, one *arriving) error {
	v, err := convert.ParseIndex(index)
	if err != nil {
		return err
	}
	one.index, one.IsIndex, one.data = index, true, map[digest.Digest][]byte{}
	if err := l.signatures(ctx, j, one, digest.FromBytes(index), ""); err != nil {
		return err
	}
	seen := map[digest.Digest]bool{}
	found := false
	var first error
	for i, d := range v.Manifests {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		at := LoadedInstance{Digest: d.Digest}
		if d.Platform != nil && convert.IsImage(d) {
			at.Platform = platformText(d.Platform)
		}
		img, err := l.readEntry(ctx, j, d, one.data)
		if err == nil && convert.IsManifest(d) {
			err = l.signatures(ctx, j, one, d.Digest, d.Digest)
		}
		at.Data = img == nil && err == nil
		if err != nil {
			err = kimg.Wrap(fmt.Sprintf("manifests[%d]", i), err)
			if err := l.unreadable(ctx, kimg.Wrap(one.label, err)); err != nil {
				return err
			}
			at.Err = err
			if first == nil {
				first = err
			}
		}
		found = found || err == nil
		one.images, one.Instances = append(one.images, img), append(one.Instances, at)
	}
	if !found {
		return first
	}
	return l.otherSystems(ctx, j, one)
}

// otherSystems keeps the layers of images for other systems as data, as far as there is room: then the index leaves the store as it
// came. Layers that may not be distributed stay where they are.
func (l *loader) otherSystems(ctx context.Context, j *job, one *arriving) error {
	room := int64(maxKept)
	for _, list := range slices.Concat(l.all, []*arriving{one}) {
		for _, data := range list.data {
			room -= int64(len(data))
		}
	}
	for i := range one.Instances {
		at := &one.Instances[i]
		if !at.Data || at.Platform == "" {
			continue
		}
		blobs, err := namedBy(one.data[at.Digest])
		if err != nil {
			return err
		}
		layers := slices.DeleteFunc(blobs[1:], func(d ispec.Descriptor) bool { return convert.Foreign(d.MediaType) })
		left := room
		for _, d := range layers {
			left -= min(max(d.Size, 0), maxKept+1)
		}
		if left < 0 {
			l.Converter.o.Logger.WarnContext(ctx, "the layers of an image for another system are too large to be kept; the index will leave the store without it",
				"image", one.label, "platform", at.Platform)
			continue
		}
		room = left
		if err := keepBlobs(ctx, j.from, layers, one.data); err != nil {
			err = kimg.Wrap(at.Platform, err)
			if err := l.unreadable(ctx, kimg.Wrap(one.label, err)); err != nil {
				return err
			}
			at.Data, at.Err = false, err
		}
	}
	return nil
}

// keepBlobs reads all of some blobs, or none.
func keepBlobs(ctx context.Context, src Source, blobs []ispec.Descriptor, data map[digest.Digest][]byte) (err error) {
	kept := map[digest.Digest][]byte{}
	for _, b := range blobs {
		if kept[b.Digest], err = transfer.Document(ctx, src, b, maxKept); err != nil {
			return err
		}
	}
	maps.Copy(data, kept)
	return nil
}

// readEntry reads one entry of an index: an image, or what is kept as data.
func (l *loader) readEntry(ctx context.Context, j *job, d ispec.Descriptor, data map[digest.Digest][]byte) (*transfer.Image, error) {
	manifest, blobs, err := j.blobsOf(ctx, d)
	if err != nil {
		return nil, err
	}
	if convert.IsImage(d) && host(d.Platform) {
		img, err := transfer.Read(ctx, gated{j}, manifest)
		if err == nil {
			img.Digest = d.Digest
		}
		if err == nil && d.Platform != nil && img.Platform.Architecture != "" && convert.PlatformRank(*d.Platform, img.Platform) < 0 {
			l.Converter.o.Logger.WarnContext(ctx, "the image is not what its index says", "manifest", d.Digest, "index", platformText(d.Platform), "config", platformText(&img.Platform))
		}
		return img, err
	}
	if convert.IsImage(d) { // of its layers see otherSystems
		blobs = blobs[:1]
	}
	if err = keepBlobs(ctx, j.from, blobs, data); err == nil && manifest != nil {
		data[d.Digest] = manifest
	}
	return nil, err
}
