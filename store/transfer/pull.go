package transfer

import (
	"context"
	"runtime"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
)

// PullOptions say which image of a source comes into the store, and how.
type PullOptions struct {
	Options
	Names       []string        // of the image in the store; none leaves it without one
	Platform    *ispec.Platform // wanted; nil is this machine's
	AnyPlatform bool            // an image that is not of an index may be for another platform
	NoForeign   bool            // foreign layers are refused, class unsupported, before anything is fetched
}

// Result says what came into the store.
type Result struct {
	Image    *store.Image
	Digest   digest.Digest // of the manifest at the source
	Layers   []Done
	Unpacked int // layers that were fetched
	Skipped  int // layers that the store had
}

// Change is [store.Store.Change] for what brings layers: when somebody removes one meanwhile that was to be used again, everything is
// done again, three times at most.
func Change(ctx context.Context, st *store.Store, op string, stage func(ctx context.Context, tx *store.Tx) error) error {
	return store.Again(func() error { return st.Change(ctx, op, stage) })
}

// Pull brings one image of a source into the store: of an index the one that serves the platform best. When it returns nil the image
// is there with its names, and durable; otherwise the store is what it was before.
func Pull(ctx context.Context, st *store.Store, src Source, o PullOptions) (Result, error) {
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	img, err := Choose(ctx, src, o)
	if err != nil {
		return Result{}, err
	}
	var r Result
	var rec store.ImageRecord
	err = Change(ctx, st, "pull", func(ctx context.Context, tx *store.Tx) error {
		r = Result{Digest: img.Digest}
		one := *img // a second attempt begins anew
		var err error
		if rec, r.Layers, err = one.Unpack(ctx, tx, o.Options); err == nil {
			rec.Names = names
			tx.PutImage(rec)
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	for _, d := range r.Layers {
		if d.Skipped {
			r.Skipped++
		} else {
			r.Unpacked++
		}
	}
	r.Image, err = st.Resolve(ctx, rec.ID(), nil)
	return r, err
}

// Choose reads the image of a source that is meant: of an index the one for the platform. Class unsupported when there is none, or
// when the image is for another platform; a configuration that contradicts the index is a warning in the log.
func Choose(ctx context.Context, src Source, o PullOptions) (*Image, error) {
	want := ispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if o.Platform != nil {
		want = *o.Platform
	}
	manifest, err := src.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	var entry *ispec.Descriptor
	if convert.IsIndex(manifest, "") {
		v, err := convert.ParseIndex(manifest)
		if err != nil {
			return nil, err
		}
		d, ok := v.For(want)
		if !ok {
			return nil, kimg.Errorf(kimg.ErrUnsupported, "", "an index without an image for %s", platform(want))
		}
		if manifest, err = src.ManifestByDigest(ctx, d.Digest); err != nil {
			return nil, err
		}
		entry = &d
	}
	img, err := Read(ctx, src, manifest)
	if err != nil {
		return nil, err
	}
	switch {
	case convert.PlatformRank(want, img.Platform) >= 0:
	case entry != nil && entry.Platform == nil:
		return nil, kimg.Errorf(kimg.ErrUnsupported, "", "an index without an image for %s", platform(want))
	case img.Platform.Architecture == "":
	case entry != nil && o.Logger != nil:
		o.Logger.WarnContext(ctx, "the image is not what its index says", "manifest", entry.Digest, "index", platform(*entry.Platform), "config", platform(img.Platform))
	case entry == nil && !o.AnyPlatform:
		return nil, kimg.Errorf(kimg.ErrUnsupported, "", "an image for %s, not for %s", platform(img.Platform), platform(want))
	}
	for n, l := range img.Said {
		if o.NoForeign && convert.Foreign(l.MediaType) {
			return nil, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: layers[%d] is foreign", n)
		}
	}
	return img, nil
}

// platform writes a platform as users do.
func platform(p ispec.Platform) string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return kimg.Escape(text, 100)
}
