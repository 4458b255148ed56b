package image

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
)

// Entry is an image as an index has it.
type Entry struct {
	ispec.Descriptor
	Where string // for [store.ListRecord]: a reference to it with its transport; empty: it is in the store
	// Data are the manifest and the blobs of what a list of the store has that is no image, as an attestation: another list keeps them for
	// itself.
	Data map[digest.Digest][]byte
}

// Entries describes an image anywhere, when the policy accepts it, as what an index has of it. Of an index these are all its entries,
// or with Options.Single or Platform the one for a platform. The platform of a single image is that of its configuration. No layer is
// read. Class unsupported for schema 1, which no index holds.
func (c *Converter) Entries(ctx context.Context, src types.ImageReference) ([]Entry, error) {
	from, err := c.openSource(ctx, src, "")
	if err != nil {
		return nil, kimg.Wrap(label(src), err)
	}
	defer from.Close()
	all, err := (&job{Converter: c, src: src, dst: src, from: from}).entries(ctx)
	return all, kimg.Wrap(label(src), err)
}

func (j *job) entries(ctx context.Context) ([]Entry, error) {
	manifest, err := j.from.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if !convert.IsIndex(manifest, "") {
		d, err := j.alone(ctx, manifest)
		return []Entry{{Descriptor: d, Where: where(j.src, d.Digest)}}, err
	}
	v, err := convert.ParseIndex(manifest)
	if err != nil {
		return nil, err
	}
	if want := j.wanted(); want != nil {
		d, ok := v.For(*want)
		if !ok || d.Platform == nil {
			return nil, kimg.Errorf(kimg.ErrNotFound, "", "the index has no image for %s", platformText(want))
		}
		_, err := j.instance(ctx, d) // the policy is asked
		return []Entry{{Descriptor: d, Where: where(j.src, d.Digest)}}, err
	}
	var all []Entry
	for _, d := range v.Manifests {
		e := Entry{Descriptor: d, Where: where(j.src, d.Digest)}
		if !convert.IsImage(d) && NamesStore(j.src) {
			e.Data = map[digest.Digest][]byte{}
			if err := j.keepOther(ctx, d, e.Data); err != nil {
				return nil, kimg.Wrap(d.Digest.String(), err)
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// keepOther reads what an index has that is no image: its manifest and the blobs that it names.
func (j *job) keepOther(ctx context.Context, d ispec.Descriptor, data map[digest.Digest][]byte) error {
	manifest, blobs, err := j.blobsOf(ctx, d)
	if err == nil {
		err = keepBlobs(ctx, j.from, blobs, data)
	}
	if err == nil && manifest != nil {
		data[d.Digest] = manifest
	}
	return err
}

// alone describes an image that is in no index.
func (j *job) alone(ctx context.Context, manifest []byte) (ispec.Descriptor, error) {
	f, err := convert.Detect(manifest, "")
	if err == nil && f == convert.DockerV2S1 {
		err = kimg.Errorf(kimg.ErrUnsupported, "", "media-type: an index does not hold images of schema 1")
	}
	if err != nil {
		return ispec.Descriptor{}, err
	}
	p, err := j.readPicture(ctx, j.from, manifest)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	return ispec.Descriptor{MediaType: f.ManifestType(), Digest: p.digest, Size: int64(len(manifest)), Platform: &p.platform}, nil
}

// where is a reference that leads to a manifest, or to the index that it is in, from any directory and as long as the manifest is there.
func where(src types.ImageReference, d digest.Digest) string {
	switch name := src.Transport().Name(); name {
	case transportStore:
		return ""
	case transportDocker:
		return "docker://" + reference.TrimNamed(src.DockerReference()).Name() + "@" + d.String()
	default:
		path, image, named := strings.Cut(src.StringWithinTransport(), ":")
		if name == transportDir {
			path, image, named = src.StringWithinTransport(), "", false
		}
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		if named {
			path += ":" + image
		}
		return name + ":" + path
	}
}
