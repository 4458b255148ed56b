package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
)

// registry is an image of a registry as a Source. containers/image speaks to it.
type registry struct {
	types.ImageSource
}

func openRegistry(ctx context.Context, ref types.ImageReference, sys *types.SystemContext) (*registry, error) {
	src, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return nil, registryError(err)
	}
	return &registry{src}, nil
}

// Manifest implements Source. What a reference by digest leads to is checked against the digest.
func (r *registry) Manifest(ctx context.Context) ([]byte, error) {
	data, _, err := image.UnparsedInstance(r.ImageSource, nil).Manifest(ctx)
	if err == nil {
		err = strict.Size("manifest", int64(len(data)), strict.MaxDocument)
	}
	return data, registryError(err)
}

// ManifestByDigest implements Source.
func (r *registry) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	data, _, err := image.UnparsedInstance(r.ImageSource, &d).Manifest(ctx)
	if err == nil {
		err = strict.Size("manifest", int64(len(data)), strict.MaxDocument)
	}
	return data, registryError(err)
}

// Signatures implements Source.
func (r *registry) Signatures(ctx context.Context) ([][]byte, error) {
	s, err := r.GetSignatures(ctx, nil)
	return s, registryError(err)
}

// Blob implements Source.
func (r *registry) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	body, size, err := r.GetBlob(ctx, types.BlobInfo{Digest: d, Size: -1}, none.NoCache)
	if err != nil {
		return nil, 0, registryError(err)
	}
	return &remote{body}, size, nil
}

// remote is the body of a blob; its errors are those of the network.
type remote struct{ io.ReadCloser }

func (r *remote) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = registryError(err)
	}
	return n, err
}

// registryError gives a failure of the registry its class.
func registryError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || kimg.ClassOf(err) != kimg.ErrInternal && !isNetwork(err) {
		return err
	}
	return &kimg.Error{Class: registryClass(err), Err: err}
}

// registryClass goes by types where the library has them, and by its texts where it does not.
func registryClass(err error) kimg.Class {
	var unauthorized docker.ErrUnauthorizedForCredentials
	var status docker.UnexpectedHTTPStatusError
	var unknown x509.UnknownAuthorityError
	var verification *tls.CertificateVerificationError
	text := strings.ToLower(err.Error())
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
	}
	switch {
	case errors.As(err, &unauthorized), says("unauthorized", "denied", "authentication required", "statuscode: 401", "statuscode: 403"):
		return kimg.ErrAuth
	case errors.Is(err, docker.ErrTooManyRequests), says("toomanyrequests", "statuscode: 429"):
		return kimg.ErrRateLimit
	case errors.As(err, &unknown), errors.As(err, &verification), says("x509:"):
		return kimg.ErrTLS
	case errors.As(err, &status) && status.StatusCode == 404, says("manifest unknown", "name unknown", "blob unknown", "statuscode: 404"):
		return kimg.ErrNotFound
	case says("does not match"):
		return kimg.ErrIntegrity // the manifest against the digest in the reference
	}
	return kimg.ErrNetwork
}

func isNetwork(err error) bool {
	var no net.Error
	return errors.As(err, &no)
}
