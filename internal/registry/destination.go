package registry

import (
	"context"
	"errors"
	"io"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
)

// Destination is where images go in a registry. Blobs that were put stay there when no manifest follows, named by nobody, and the registry
// collects them. All methods are patient but Put, which needs its blob anew: see [Patience.Resend]. Errors have classes.
type Destination struct {
	*Session[types.ImageDestination]
	Seen types.BlobInfoCache // where else on this registry blobs are
}

// Create begins to speak to the registry that ref names. The caller closes the Destination.
func Create(ctx context.Context, ref types.ImageReference, sys *types.SystemContext, p Patience, seen types.BlobInfoCache) (*Destination, error) {
	p = p.For(sys, ref.DockerReference())
	p.Limited = true
	s, err := Begin(ctx, p, func(ctx context.Context) (types.ImageDestination, error) {
		to, err := ref.NewImageDestination(ctx, sys)
		if err != nil {
			return nil, err
		}
		if err := to.SupportsSignatures(ctx); err != nil { // the first question: the library asks it once, and keeps what it failed with
			return nil, errors.Join(err, to.Close())
		}
		return to, nil
	})
	if err != nil {
		return nil, err
	}
	return &Destination{s, seen}, nil
}

// Close ends it.
func (d *Destination) Close() error { return (*d.Now()).Close() }

// Has tells whether a blob is there, or could be mounted; size may be negative: unknown.
func (d *Destination) Has(ctx context.Context, blob digest.Digest, size int64) (there bool, err error) {
	err = d.Ask(ctx, func(ctx context.Context, to types.ImageDestination) (err error) {
		var info types.BlobInfo
		there, info, err = to.TryReusingBlob(ctx, types.BlobInfo{Digest: blob, Size: size}, d.Seen, false)
		if err == nil && there && size >= 0 && info.Size >= 0 && info.Size != size {
			err = kimg.Errorf(kimg.ErrIntegrity, blob.String(), "size: the registry has %d bytes, the manifest says %d", info.Size, size)
		}
		return err
	})
	return there, err
}

// Put sends a blob once, and checks it. Without a digest it is whatever comes, and size is -1. As long as the registry takes it, it is not
// idle. What r fails with is returned as it is. Class unsupported for a digest that is not of sha256: the library would send the blob
// under another.
func (d *Destination) Put(ctx context.Context, blob digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	if blob != "" {
		if err := Sendable(blob); err != nil {
			return "", 0, err
		}
		v, err := streamio.NewVerifier(r, size, blob)
		if err != nil {
			return "", 0, err
		}
		r = v
	}
	at := d.Now()
	watched := d.Watch(ctx)
	defer watched.Stop()
	from := &sent{Reader: r, Watch: watched}
	info, err := (*at).PutBlob(watched, from, types.BlobInfo{Digest: blob, Size: size}, d.Seen, false)
	if failed := from.failed.Load(); err != nil && failed != nil && watched.Err() == nil {
		return "", 0, *failed // and not the registry
	}
	if err = Classify(d.Judge(ctx, at, Because(watched, err))); err != nil {
		return "", 0, sending{err}
	}
	_, err = streamio.Copy(io.Discard, r) // the library does not read what somebody else has sent in the meantime
	return info.Digest, info.Size, err
}

// Sendable refuses what the library cannot send, class unsupported.
func Sendable(d digest.Digest) error {
	if d == "" || d.Algorithm() == digest.Canonical {
		return nil
	}
	return kimg.Errorf(kimg.ErrUnsupported, kimg.Quote(d.String()), "digest: registries are sent sha256 only")
}

// PutManifest puts the manifest of an instance of an index, or names one; then instance is empty.
func (d *Destination) PutManifest(ctx context.Context, instance digest.Digest, manifest []byte) error {
	if err := Sendable(instance); err != nil {
		return err
	}
	return d.Ask(ctx, func(ctx context.Context, to types.ImageDestination) error {
		if instance != "" {
			return to.PutManifest(ctx, manifest, &instance)
		}
		return to.PutManifest(ctx, manifest, nil)
	})
}

// sending is a failure while a blob was sent.
type sending struct{ error }

func (s sending) Unwrap() error { return s.error }

// Resend does something that puts one blob, and again, from the blob's beginning, while the registry fails for a while. What fails elsewhere
// is not tried again.
func (p Patience) Resend(ctx context.Context, do func() error) error {
	p.Limited = true
	return p.again(ctx, do, func(err error) bool { return errors.As(err, new(sending)) && p.Passing(err) })
}
