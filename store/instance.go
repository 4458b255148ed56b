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
	"github.com/kimg/kimg/convert"
)

const (
	dockerListType = "application/vnd.docker.distribution.manifest.list.v2+json"
	maxInstances   = 10_000
)

// IsList tells whether the image is a manifest list as podman keeps them.
func (i *Image) IsList() bool { return slices.Contains(i.rec.BigDataNames, "instances.json") }

// Choose is [Store.Resolve] for who takes an image of another platform as well: it returns the image with the platform that its
// configuration states, and does not compare. Of a manifest list the entry that serves the platform best is chosen all the same.
func (s *Store) Choose(ctx context.Context, ref string, p *ispec.Platform) (*Image, ispec.Platform, error) {
	rec, _, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, ispec.Platform{}, err
	}
	img, err := s.instance(ctx, s.image(rec), p)
	if err != nil {
		return nil, ispec.Platform{}, err
	}
	have, err := img.Platform(ctx)
	return img, have, err
}

// instance returns the image itself, or the image of a manifest list that serves the platform best.
func (s *Store) instance(ctx context.Context, img *Image, p *ispec.Platform) (*Image, error) {
	// Only podman's manifest lists carry instances.json; an image stored together with its index has a plain manifest.
	if !img.IsList() {
		return img, nil
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
	best, rank := -1, -1
	for i, d := range index.Manifests {
		if d.Platform == nil {
			continue
		}
		if r := convert.PlatformRank(want, *d.Platform); r >= 0 && (best < 0 || r < rank) { // of equals the first
			best, rank = i, r
		}
	}
	if best < 0 {
		return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "is a manifest list without an image for %s", describe(want))
	}
	images, err := s.byDigest(index.Manifests[best].Digest)
	if err != nil {
		return nil, err
	}
	images = slices.DeleteFunc(images, func(i *storage.Image) bool { return i.ID == img.ID })
	if len(images) == 0 {
		return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "is a manifest list whose image for %s (%s) is not in this store", describe(want), index.Manifests[best].Digest)
	}
	chosen := s.image(images[0])
	chosen.indexAnnotations = index.Annotations
	return chosen, nil
}

// Platform returns the platform that the image's configuration states. Class unsupported for the old v2s1 format.
func (i *Image) Platform(ctx context.Context) (ispec.Platform, error) {
	var p ispec.Platform
	config, err := i.Config(ctx)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(config, &p); err != nil {
		return p, kimg.Errorf(kimg.ErrInvalid, i.label(), "config: %w", err)
	}
	return p, nil
}

// fits checks the image's platform against the one asked for; nil asks for none.
func (i *Image) fits(ctx context.Context, p *ispec.Platform) error {
	if p == nil {
		return nil
	}
	have, err := i.Platform(ctx)
	if err == nil && convert.PlatformRank(*p, have) < 0 {
		err = kimg.Errorf(kimg.ErrUnsupported, i.label(), "is an image for %s, not for %s", describe(have), describe(*p))
	}
	return err
}

func describe(p ispec.Platform) string {
	text := fmt.Sprintf("%s/%s", p.OS, p.Architecture)
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return kimg.Escape(text, 100)
}
