package image

import (
	"context"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/transfer"
)

// keepAbout reads what is about images on their way into the store, as a record keeps it: an index of manifests, in which those that a tag
// leads to are named by it, and everything that they name. Nothing without Options.Referrers.
func (j *job) keepAbout(ctx context.Context, data map[digest.Digest][]byte, images ...digest.Digest) (index []byte, err error) {
	if !j.o.Referrers {
		return nil, nil
	}
	all, err := j.findAbout(ctx, images)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	list := ispec.Index{MediaType: ispec.MediaTypeImageIndex}
	list.SchemaVersion = 2
	var total int64
	for _, a := range all {
		d := a.Descriptor
		if a.tag != "" {
			d.Annotations = maps.Clone(d.Annotations)
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[ispec.AnnotationRefName] = a.tag
		}
		list.Manifests = append(list.Manifests, d)
		data[a.Digest] = a.manifest
		if convert.IsIndex(a.manifest, "") {
			continue
		}
		var m ispec.Manifest
		if err := strict.UnmarshalExact(a.manifest, &m); err != nil {
			return nil, err
		}
		for _, b := range append(m.Layers, m.Config) {
			if total += max(b.Size, 0); total > maxKept {
				return nil, kimg.Errorf(kimg.ErrLimit, a.Digest.String(), "too-big: a store keeps no more than %d bytes about an image", maxKept)
			}
		}
		if err := keepBlobs(ctx, j.from, append(m.Layers, m.Config), data); err != nil {
			return nil, kimg.Wrap(a.Digest.String(), err)
		}
	}
	return strict.Marshal(list)
}

// about finds what the store keeps about images.
func (s *stored) about(ctx context.Context, images []digest.Digest) (all []about, err error) {
	index, err := s.img.About(ctx)
	list, err := fallback(index, err)
	if err != nil {
		return nil, err
	}
	known, tags, inside := map[digest.Digest]bool{}, map[string]bool{}, map[digest.Digest]bool{}
	for _, d := range images {
		known[d] = true
		for _, end := range aboutTags {
			tags[tagAbout(d)+end] = true
		}
	}
	for _, d := range slices.Backward(list) { // what an index has comes before it
		manifest, err := transfer.Document(ctx, s, d, strict.MaxDocument)
		if err != nil {
			return nil, kimg.Wrap(d.Digest.String(), err)
		}
		a, err := newAbout(manifest, d.Annotations[ispec.AnnotationRefName])
		if err != nil {
			return nil, kimg.Wrap(d.Digest.String(), err)
		}
		all = append(all, a)
		if tags[a.tag] && convert.IsIndex(manifest, "") {
			entries, err := fallback(manifest, nil)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				inside[e.Digest] = true
			}
		}
	}
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(a about) bool { // subjects come before what is about them
		if known[a.subject] {
			known[a.Digest] = true
		}
		return !known[a.subject] && !tags[a.tag] && !inside[a.Digest]
	}), nil
}
