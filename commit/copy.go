package commit

import (
	"context"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/pkg/compression"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// CopyOptions says how [Copy] writes an image.
type CopyOptions struct {
	Compression layerdiff.Compression // of the layers; the zero value leaves them uncompressed
	Level       int                   // of the compression; 0 is the algorithm's default
	NoSync      bool                  // does not wait until the destination is on disk

	// System is handed to the destination's transport; nil: defaults. Its compression members are overwritten.
	System *types.SystemContext
}

// formats are what each transport of files holds. Committing directly in that format loses nothing; letting copy.Image
// convert would.
var formats = map[string]convert.Format{
	"oci": convert.OCI, "oci-archive": convert.OCI, "docker-archive": convert.DockerV2S2,
}

// Copy commits a container to a destination outside the store: oci:, oci-archive:, docker-archive: or dir:. When it returns
// nil the image is on disk; when it fails, the destination is what it was before. Options.Format may be empty: then it is
// what the destination holds.
func Copy(ctx context.Context, st *store.Store, id string, dest types.ImageReference, o Options, co CopyOptions) (Result, error) {
	name := dest.Transport().Name() + ":" + dest.StringWithinTransport()
	if err := o.fit(dest.Transport().Name(), co); err != nil {
		return Result{}, kimg.Wrap(name, err)
	}
	c, err := st.Container(ctx, id)
	if err != nil {
		return Result{}, err
	}
	// One source serves the copy and the result, so the container is hashed once.
	ref := &containerRef{st: st, id: c.ID, o: o}
	src, err := ref.source(ctx)
	if err != nil {
		return Result{}, err
	}
	ref.opened = src

	target, err := openTarget(dest)
	if err != nil {
		return Result{}, kimg.Wrap(name, err)
	}
	defer target.close()
	manifest, err := copyImage(ctx, ref, dest, o, co)
	if err == nil && !co.NoSync {
		err = target.sync()
	}
	if err != nil {
		return Result{}, kimg.Wrap(name, target.restore(err))
	}
	r := Result{Names: nil, Layer: src.blob}
	r.fill(src.docs)
	r.ManifestDigest = digest.FromBytes(manifest)
	return r, nil
}

// fit completes the format from the destination and refuses what the destination cannot hold.
func (o *Options) fit(transport string, co CopyOptions) error {
	switch transport {
	case "oci", "oci-archive", "docker-archive", "dir":
	default:
		return kimg.Errorf(kimg.ErrUnsupported, "", "commit to %s: is not available", transport)
	}
	native, fixed := formats[transport]
	if o.Format == "" {
		o.Format = native
	}
	if fixed && o.Format != native {
		return kimg.Errorf(kimg.ErrInvalid, "", "%s: holds %s images, not %s", transport, native, kimg.Quote(string(o.Format)))
	}
	switch co.Compression {
	case layerdiff.NoCompression, layerdiff.Gzip:
	default:
		return kimg.Errorf(kimg.ErrUnsupported, "", "compression %s is not available", kimg.Quote(string(co.Compression)))
	}
	if transport == "docker-archive" && co.Compression != layerdiff.NoCompression {
		return kimg.Errorf(kimg.ErrInvalid, "", "docker-archive: holds uncompressed layers only")
	}
	return nil
}

// copyImage hands the container to copy.Image. The source is the user's own container, so no policy is asked.
func copyImage(ctx context.Context, src, dest types.ImageReference, o Options, co CopyOptions) ([]byte, error) {
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = policy.Destroy() }() // holds nothing but memory
	sys := types.SystemContext{}
	if co.System != nil {
		sys = *co.System
	}
	sys.CompressionFormat, sys.CompressionLevel = nil, nil
	sys.OCIAcceptUncompressedLayers = co.Compression == layerdiff.NoCompression
	sys.DirForceCompress = co.Compression != layerdiff.NoCompression
	if co.Compression == layerdiff.Gzip {
		sys.CompressionFormat = &compression.Gzip
		if co.Level > 0 {
			sys.CompressionLevel = &co.Level
		}
	}
	return copy.Image(ctx, policy, dest, src, &copy.Options{
		DestinationCtx: &sys, SourceCtx: &sys, MaxParallelDownloads: uint(max(o.Jobs, 0)),
		ForceManifestMIMEType: o.format().ManifestType(),
		// Else a layer that the destination has in another form would be taken as it is.
		ForceCompressionFormat: sys.CompressionFormat != nil,
	})
}
