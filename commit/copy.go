package commit

import (
	"context"
	"slices"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// CopyOptions says how [Copy] writes images outside the store.
type CopyOptions struct {
	// Compression of the layers. Empty: gzip in registries, none elsewhere; [Uncompressed]: none anywhere. What comes out is remembered
	// in the store: what goes to the same place again is neither compressed nor sent.
	Compression layerdiff.Compression
	Level       int  // of the compression, as [layerdiff.CheckLevel] says; 0 is the algorithm's default
	NoSync      bool // does not wait until the destinations are on disk

	Retries     int           // how often a registry that fails for a while is asked again; 0: 3 times; negative: never
	RetryPause  time.Duration // before the first; 0: 1 s. Each is twice as long as the one before
	IdleTimeout time.Duration // a registry that is silent for so long has failed; 0: 60 s

	// System is handed to the image library where it speaks to a registry: credentials, certificates; nil: defaults. Its compression
	// members mean nothing here.
	System *types.SystemContext
}

// Uncompressed asks for layers without compression, where the destination would have it otherwise.
const Uncompressed layerdiff.Compression = "none"

// Copied is the image at one place outside the store.
type Copied struct {
	Name           string // of the place, as users write it
	Format         convert.Format
	ManifestDigest digest.Digest // of the manifest as it is there
}

// Copy commits a container to places outside the store, oci:, oci-archive:, docker-archive:, dir: and docker://, and with
// Options.Names to its own store as well. The container is hashed once, and the image is the same everywhere: it has one
// ID, and a manifest in the format each place can hold.
//
// Everything is staged at every place before it is published at any, in this order: the store, files and directories as
// they are given, registries as they are given. When one fails, its name is in the error and all that was published is
// taken back, unless another process has changed it since. Only a registry cannot take a manifest back: the error lists
// those that have the image. With Options.Remove the container goes when the image is everywhere. When Copy returns nil
// everything is on disk. Without destinations it is [Container].
func Copy(ctx context.Context, st *store.Store, id string, dests []types.ImageReference, o Options, co CopyOptions) (Result, error) {
	if err := Check(dests, o, co); err != nil {
		return Result{}, err
	}
	if o.Created == nil {
		now := time.Now().UTC() // one time for all manifests
		o.Created = &now
	}
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	if len(names) > 0 || len(dests) == 0 || o.Manifest != "" {
		return intoStore(ctx, st, id, o, names, func() *copies { return newCopies(ctx, st, dests, o, co) })
	}
	c, err := st.Container(ctx, id)
	if err != nil {
		return Result{}, err
	}
	out := newCopies(ctx, st, dests, o, co)
	defer out.close()
	out.begin()
	var src *source
	how, err := out.first(ctx)
	if err == nil {
		src, err = (&containerRef{st: st, id: c.ID, o: o}).source(ctx, out.maker, how)
	}
	if err == nil {
		defer src.Close()
		err = out.stage(ctx, src)
	}
	if err == nil {
		err = out.publish(ctx)
	}
	if err == nil && o.Remove {
		err = c.Remove(ctx)
	}
	if err != nil {
		return Result{}, out.failed(ctx, err)
	}
	r := Result{Layer: src.blob, Removed: o.Remove}
	r.fill(src.docs)
	out.tell(&r)
	return r, nil
}

// Check refuses what cannot be: a format or a compression that a destination does not hold, two images at one place. The class
// is invalid, or unsupported for a transport that images are not committed to. Nothing is opened.
func Check(dests []types.ImageReference, o Options, co CopyOptions) error {
	if err := checkCompression(o.Format, co.Compression, co.Level); err != nil {
		return err
	}
	var taken []string
	for _, dest := range dests {
		at, err := placeOf(dest)
		if err == nil {
			err = at.fits(o, co)
		}
		where := label(dest)
		if err == nil && !at.many {
			where = dest.Transport().Name() + ":" + at.path
		}
		if err == nil && slices.Contains(taken, where) {
			err = kimg.Errorf(kimg.ErrInvalid, "", "is given twice")
		}
		if err != nil {
			return kimg.Wrap(label(dest), err)
		}
		taken = append(taken, where)
	}
	return nil
}
