package store

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
)

// Record finds what ref means as [Store.Resolve] does, but a manifest list is itself.
func (s *Store) Record(ctx context.Context, ref string) (*Image, error) {
	rec, _, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.image(rec), nil
}

// Named is [Store.Record], with the name by which the image was found; empty when ref is an ID or a digest.
func (s *Store) Named(ctx context.Context, ref string) (*Image, string, error) {
	rec, name, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, "", err
	}
	return s.image(rec), name, nil
}

// Choose is [Store.Resolve] for who takes an image of another platform as well: what it is for is not compared. Of a manifest list the
// entry that serves the platform best is chosen all the same.
func (s *Store) Choose(ctx context.Context, ref string, p *ispec.Platform) (*Image, error) {
	rec, _, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.instance(ctx, s.image(rec), p)
}

// instance returns the image itself, or the image of a manifest list that serves the platform best.
func (s *Store) instance(ctx context.Context, img *Image, p *ispec.Platform) (*Image, error) {
	// Only podman's manifest lists carry instances.json; an image stored together with its index has a plain manifest.
	if !img.IsList() {
		return img, nil
	}
	data, _, err := img.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	v, err := listView(data)
	if err != nil {
		return nil, kimg.Wrap(img.label(), err)
	}
	want := ispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if p != nil {
		want = *p
	}
	d, ok := v.For(want)
	if !ok {
		return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "is a manifest list without an image for %s", describe(want))
	}
	chosen, err := s.manifestOwner(d.Digest)
	if err != nil {
		return nil, err
	}
	if chosen == nil {
		return nil, kimg.Errorf(kimg.ErrUnsupported, img.label(), "is a manifest list whose image for %s (%s) is not in this store", describe(want), d.Digest)
	}
	if d.Platform == nil {
		if err := chosen.fits(ctx, &want); err != nil {
			return nil, err
		}
	}
	chosen.indexAnnotations = v.Annotations
	if err := chosen.fits(ctx, d.Platform); err != nil {
		s.log.WarnContext(ctx, "the image is not what its index says", "index", img.label(), "error", err)
	}
	return chosen, nil
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
	if convert.PlatformRank(*p, have) < 0 {
		return kimg.Errorf(kimg.ErrUnsupported, i.label(), "is an image for %s, not for %s", describe(have), describe(*p))
	}
	return nil
}

func describe(p ispec.Platform) string {
	text := fmt.Sprintf("%s/%s", p.OS, p.Architecture)
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return kimg.Escape(text, 100)
}
