package commit

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// destination is a place in the file system: the image appears when it is committed, and until Close that can be undone.
type destination interface {
	Has(ctx context.Context, d digest.Digest, size int64) (bool, error)
	Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error)
	File() (*os.File, error)
	Keep(f *os.File, d digest.Digest, size int64) error
	Commit(ctx context.Context, manifest []byte, mediaType string) error
	TakeBack(ctx context.Context) error
	Close() error
}

// staged is a destination for copy.Image that publishes nothing: it puts the blobs and keeps the manifest for later. One of
// to and remote is there.
type staged struct {
	ref      types.ImageReference
	to       destination
	remote   types.ImageDestination
	compress bool
	steps    *steps
	manifest []byte
}

// stagedRef is a reference that leads to a staged destination.
type stagedRef struct {
	types.ImageReference
	to *staged
}

// NewImageDestination implements types.ImageReference.
func (r stagedRef) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return r.to, nil
}

func (s *staged) Reference() types.ImageReference { return s.ref }

// Close implements types.ImageDestination: what is staged stays until it is published or given up.
func (s *staged) Close() error { return nil }

func (s *staged) SupportedManifestMIMETypes() []string { return nil }
func (s *staged) SupportsSignatures(context.Context) error {
	return kimg.Errorf(kimg.ErrUnsupported, "", "a new image has no signatures")
}
func (s *staged) AcceptsForeignLayerURLs() bool        { return false }
func (s *staged) MustMatchRuntimeOS() bool             { return false }
func (s *staged) IgnoresEmbeddedDockerReference() bool { return true }
func (s *staged) HasThreadSafePutBlob() bool           { return s.to != nil || s.remote.HasThreadSafePutBlob() }

func (s *staged) DesiredLayerCompression() types.LayerCompression {
	if s.compress {
		return types.Compress
	}
	return types.Decompress
}

// PutBlob implements types.ImageDestination.
func (s *staged) PutBlob(ctx context.Context, r io.Reader, info types.BlobInfo, cache types.BlobInfoCache, isConfig bool) (_ types.BlobInfo, err error) {
	var layer *layerStep
	if isConfig {
		s.steps.begin(StepConfig)
	} else {
		layer = s.steps.layer(info.Digest.String(), info.Size)
		defer func() { layer.end(err) }()
	}
	r = s.steps.count(r, layer)
	if s.remote != nil {
		return s.remote.PutBlob(ctx, r, info, cache, isConfig)
	}
	d, size, err := s.to.Put(ctx, info.Digest, info.Size, r)
	return types.BlobInfo{Digest: d, Size: size}, err
}

// TryReusingBlob implements types.ImageDestination. A layer that is there in another form than is wanted is not one.
func (s *staged) TryReusingBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache, _ bool) (bool, types.BlobInfo, error) {
	if s.compress && strings.HasSuffix(info.MediaType, "tar") {
		return false, types.BlobInfo{}, nil
	}
	if s.remote != nil {
		return s.remote.TryReusingBlob(ctx, info, cache, false)
	}
	if info.Size < 0 {
		return false, types.BlobInfo{}, nil
	}
	there, err := s.to.Has(ctx, info.Digest, info.Size)
	return there, types.BlobInfo{Digest: info.Digest, Size: info.Size}, err
}

// PutManifest implements types.ImageDestination.
func (s *staged) PutManifest(_ context.Context, manifest []byte, instance *digest.Digest) error {
	if instance != nil {
		return kimg.Errorf(kimg.ErrInternal, "", "a container is one image, not a list")
	}
	s.manifest = manifest
	return nil
}

// PutSignatures implements types.ImageDestination.
func (s *staged) PutSignatures(_ context.Context, signatures [][]byte, _ *digest.Digest) error {
	if len(signatures) > 0 {
		return s.SupportsSignatures(context.Background())
	}
	return nil
}

// Commit implements types.ImageDestination: nothing happens before publish.
func (s *staged) Commit(context.Context, types.UnparsedImage) error { return nil }

// publish makes the image appear.
func (s *staged) publish(ctx context.Context, mediaType string) error {
	if s.to != nil {
		return s.to.Commit(ctx, s.manifest, mediaType)
	}
	err := s.remote.PutManifest(ctx, s.manifest, nil)
	if err == nil {
		err = s.remote.Commit(ctx, nil)
	}
	return err
}
