package commit

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// PullPolicy says when an image is fetched that a build stands on.
type PullPolicy string

// The policies.
const (
	PullMissing PullPolicy = "missing" // when the store has none for the platform; the default
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
	PullNewer   PullPolicy = "newer" // when the registry has another one; when it cannot be asked, what the store has will do
)

// PullRequest is an image that is to be fetched into the store, under Name.
type PullRequest struct {
	Name     string // a full reference
	Platform ispec.Platform
	Policy   PullPolicy
	Have     digest.Digest // of the manifest of the image that the store has; the same one need not be fetched for PullNewer
}

// FromOptions say what a build stands on. The zero value takes what the store has, for any platform.
type FromOptions struct {
	Platform *ispec.Platform // nil: this machine's, where there is a choice
	Policy   PullPolicy
	Pull     func(context.Context, PullRequest) error // nil: nothing can be fetched
	Owner    string                                   // of the lease on the image, for people; empty: kimg
	Purpose  string                                   // of the lease; empty: build
	Lease    time.Duration                            // how long; 0: 24 hours
	Logger   *slog.Logger                             // nil: the store's
}

// Warning is something that a user should hear and that stops nobody.
type Warning struct {
	Code  string // WarnPlatform
	Image string // as it was asked for
	Asked ispec.Platform
	Has   ispec.Platform
}

// WarnPlatform is the code of an image whose configuration states another platform than it was asked, listed or fetched for.
const WarnPlatform = "platform-mismatch"

const leaseTime = 24 * time.Hour

// From opens the newest layer of an image, found as [store.Store.Resolve] does, to build on; "" and scratch are no image at all. A
// platform that no image can have, and one from scratch for Windows, is refused before anything is looked for (class invalid,
// class unsupported). An image in the store for another platform than the one asked for is not the one that is wanted; one that was
// fetched, or chosen from a list, is taken with a warning. The image is leased until the last layer on it is released; that it
// cannot be is logged.
func From(ctx context.Context, st *store.Store, ref string, o FromOptions) (*ROLayer, error) {
	want := ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if o.Platform != nil {
		want = *o.Platform
	}
	if err := checkPlatform("platform", want); err != nil {
		return nil, err
	}
	if o.Lease < 0 {
		return nil, kimg.Errorf(kimg.ErrInvalid, "lease", "%v is no time to hold an image", o.Lease)
	}
	if o.Logger == nil {
		o.Logger = st.Logger()
	}
	b := &build{st: st, log: o.Logger, users: 1}
	if ref == "" || ref == "scratch" {
		if want.OS == "windows" {
			return nil, kimg.Errorf(kimg.ErrUnsupported, "scratch", "Windows has no images without a base")
		}
		return &ROLayer{b: b, blob: noLayer()}, nil
	}
	img, err := find(ctx, st, ref, want, o)
	if err != nil {
		return nil, err
	}
	l := &ROLayer{Image: img, b: b, top: img.TopLayer}
	if b.lease, err = st.Lease(ctx, store.LeaseOptions{
		Image: img.ID, Owner: cmp.Or(o.Owner, "kimg"), Purpose: cmp.Or(o.Purpose, "build"), TTL: cmp.Or(o.Lease, leaseTime),
	}); err != nil {
		if context.Cause(ctx) != nil || kimg.ClassOf(err) == kimg.ErrNotFound {
			return nil, err
		}
		o.Logger.WarnContext(ctx, "the image could not be leased", "image", ref, "error", kimg.Line(err))
	}
	has, err := l.open(ctx)
	if err == nil {
		err = checkPlatform(ref, has)
	}
	if err != nil {
		b.drop(context.WithoutCancel(ctx))
		return nil, err
	}
	if convert.PlatformRank(want, has) < 0 {
		l.Warnings = append(l.Warnings, Warning{WarnPlatform, ref, want, has})
		o.Logger.WarnContext(ctx, "the image is for another platform", "image", ref, "asked", want, "has", has)
	}
	return l, nil
}

// open reads what the image says of its layers, and checks that the store has those.
func (l *ROLayer) open(ctx context.Context) (ispec.Platform, error) {
	p, err := parentOf(ctx, l.b.st, l.Image)
	if err != nil {
		return ispec.Platform{}, err
	}
	l.b.diffIDs, l.blob = p.config.RootFS.DiffIDs, noLayer()
	if n := len(p.layers); n > 0 {
		l.blob = p.layers[n-1]
	}
	return ispec.Platform{OS: p.config.OS, Architecture: p.config.Architecture, Variant: p.config.Variant}, nil
}

// noLayer is what stands for a layer where there is none.
func noLayer() convert.Layer {
	_, empty := convert.EmptyLayer()
	return convert.Layer{DiffID: empty.DiffID}
}

// checkPlatform refuses what no image is for.
func checkPlatform(object string, p ispec.Platform) error {
	err := copydata.Settings{Image: docker.Image{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}}.Check(copydata.Settings{})
	return kimg.Wrap(object, err)
}

// find finds the image in the store, or has it fetched.
func find(ctx context.Context, st *store.Store, ref string, want ispec.Platform, o FromOptions) (*store.Image, error) {
	img, err := st.Resolve(ctx, ref, o.Platform)
	absent := kimg.ClassOf(err) == kimg.ErrNotFound || kimg.ClassOf(err) == kimg.ErrUnsupported
	switch o.Policy {
	case "", PullMissing:
		if !absent {
			return img, err
		}
	case PullAlways, PullNewer:
		if err != nil && !absent {
			return nil, err
		}
	case PullNever:
		return img, err
	default:
		return nil, kimg.Errorf(kimg.ErrInvalid, "pull", "policy %s", kimg.Quote(string(o.Policy)))
	}
	name := pullable(ref)
	if name == "" || o.Pull == nil && o.Policy != PullAlways {
		return img, err
	}
	if o.Pull == nil {
		return nil, kimg.Errorf(kimg.ErrUnsupported, ref, "images cannot be fetched here")
	}
	r := PullRequest{Name: name, Platform: want, Policy: cmp.Or(o.Policy, PullMissing)}
	if err == nil {
		r.Have = img.Digest
	}
	if perr := o.Pull(ctx, r); perr != nil {
		if o.Policy == PullNewer && err == nil && context.Cause(ctx) == nil {
			o.Logger.WarnContext(ctx, "the registry could not be asked for a newer image", "image", ref, "error", kimg.Line(perr))
			return img, nil
		}
		return nil, kimg.Wrap(ref, perr)
	}
	return st.Choose(ctx, name, o.Platform) // of another platform than was asked for: a warning
}

// pullable returns the full reference that a registry knows an image by; "" for IDs and names of this machine.
func pullable(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || strings.HasPrefix(ref, "sha256:") || reference.Domain(named) == "localhost" {
		return ""
	}
	return reference.TagNameOnly(named).String()
}
