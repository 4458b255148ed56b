package image

import (
	"context"
	"io"

	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/regerror"
	"github.com/kimg/kimg/internal/strict"
)

// registry is an image of a registry as a Source. containers/image speaks to it.
type registry struct {
	types.ImageSource
}

func openRegistry(ctx context.Context, ref types.ImageReference, sys *types.SystemContext) (*registry, error) {
	src, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return nil, regerror.Classify(err)
	}
	return &registry{src}, nil
}

// Manifest implements Source. What a reference by digest leads to is checked against the digest.
func (r *registry) Manifest(ctx context.Context) ([]byte, error) {
	data, _, err := image.UnparsedInstance(r.ImageSource, nil).Manifest(ctx)
	if err == nil {
		err = strict.Size("manifest", int64(len(data)), strict.MaxDocument)
	}
	return data, regerror.Classify(err)
}

// ManifestByDigest implements Source.
func (r *registry) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	data, _, err := image.UnparsedInstance(r.ImageSource, &d).Manifest(ctx)
	if err == nil {
		err = strict.Size("manifest", int64(len(data)), strict.MaxDocument)
	}
	return data, regerror.Classify(err)
}

// Signatures implements Source.
func (r *registry) Signatures(ctx context.Context) ([][]byte, error) {
	s, err := r.GetSignatures(ctx, nil)
	return s, regerror.Classify(err)
}

// Blob implements Source.
func (r *registry) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	body, size, err := r.GetBlob(ctx, types.BlobInfo{Digest: d, Size: -1}, none.NoCache)
	if err != nil {
		return nil, 0, regerror.Classify(err)
	}
	return &remote{body}, size, nil
}

// remote is the body of a blob; its errors are those of the network.
type remote struct{ io.ReadCloser }

func (r *remote) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = regerror.Classify(err)
	}
	return n, err
}
