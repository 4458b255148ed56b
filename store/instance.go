package store

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"

	"github.com/containers/storage"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
)

const (
	dockerListType = "application/vnd.docker.distribution.manifest.list.v2+json"
	maxInstances   = 10_000
)

// IsList tells whether the image is a manifest list as podman keeps them.
func (i *Image) IsList() bool { return slices.Contains(i.rec.BigDataNames, "instances.json") }

// instance returns the image itself, or the image of a manifest list that fits the platform.
func (s *Store) instance(ctx context.Context, img *Image, p *ispec.Platform) (*Image, error) {
	// Only podman's manifest lists carry instances.json; an image stored together with its index has a plain manifest.
	if !img.IsList() {
		return img, img.fits(ctx, p)
	}
	data, mediaType, err := img.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if mediaType != ispec.MediaTypeImageIndex && mediaType != dockerListType {
		return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "a manifest list of type %s", kimg.Quote(mediaType))
	}
	var index ispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, img.label(), "manifest list: %w", err)
	}
	if len(index.Manifests) > maxInstances {
		return nil, kimg.Errorf(kimg.ErrLimit, img.label(), "a manifest list of %d entries, more than %d", len(index.Manifests), maxInstances)
	}
	want := ispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if p != nil {
		want = *p
	}
	for _, d := range index.Manifests {
		if d.Platform == nil || !matches(want, *d.Platform) {
			continue
		}
		images, err := s.byDigest(d.Digest)
		if err != nil {
			return nil, err
		}
		images = slices.DeleteFunc(images, func(i *storage.Image) bool { return i.ID == img.ID })
		if len(images) == 0 {
			return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "is a manifest list whose image for %s (%s) is not in this store", describe(want), d.Digest)
		}
		chosen := s.image(images[0])
		chosen.indexAnnotations = index.Annotations
		return chosen, nil
	}
	return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "is a manifest list without an image for %s", describe(want))
}

// fits checks the image's platform against the one asked for; nil asks for none.
func (i *Image) fits(ctx context.Context, p *ispec.Platform) error {
	if p == nil {
		return nil
	}
	config, err := i.Config(ctx)
	if err != nil {
		return err
	}
	var have ispec.Platform
	if err := json.Unmarshal(config, &have); err != nil {
		return kimg.Errorf(kimg.ErrInvalid, i.label(), "config: %w", err)
	}
	if !matches(*p, have) {
		return kimg.Errorf(kimg.ErrUnsupported, i.label(), "is an image for %s, not for %s", describe(have), describe(*p))
	}
	return nil
}

// matches tells whether an image for have is one that was asked for by want; an empty member of want asks for nothing.
func matches(want, have ispec.Platform) bool {
	if want.Architecture == "arm64" && want.Variant == "v8" {
		want.Variant = "" // the only one there is, and often not written
	}
	return (want.OS == "" || want.OS == have.OS) && (want.Architecture == "" || want.Architecture == have.Architecture) &&
		(want.Variant == "" || want.Variant == have.Variant)
}

func describe(p ispec.Platform) string {
	text := fmt.Sprintf("%s/%s", p.OS, p.Architecture)
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return kimg.Escape(text, 100)
}
