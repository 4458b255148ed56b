package image

import (
	"context"
	"io"
	"sync"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
)

// remoteSource is an image of a registry as a Source.
type remoteSource struct {
	*registry.Session[types.ImageSource]

	probe  sync.Once
	ranges bool // it gives parts of blobs; known after it was asked
}

func (c *Converter) openRemote(ctx context.Context, ref types.ImageReference) (*remoteSource, error) {
	s, err := registry.Begin(ctx, c.at(ref), func(ctx context.Context) (types.ImageSource, error) { return ref.NewImageSource(ctx, c.o.Sys) })
	return &remoteSource{Session: s}, err
}

// Close implements Source.
func (r *remoteSource) Close() error { return (*r.Now()).Close() }

// Manifest implements Source. What a reference by digest leads to is checked against the digest.
func (r *remoteSource) Manifest(ctx context.Context) ([]byte, error) { return r.manifest(ctx, nil) }

// ManifestByDigest implements Source.
func (r *remoteSource) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	return r.manifest(ctx, &d)
}

func (r *remoteSource) manifest(ctx context.Context, d *digest.Digest) (data []byte, err error) {
	err = r.Ask(ctx, func(ctx context.Context, src types.ImageSource) (err error) {
		if named, ok := src.Reference().DockerReference().(reference.Canonical); ok && d == nil {
			d = optional(named.Digest())
		}
		if d == nil || d.Algorithm() == digest.Canonical {
			data, _, err = image.UnparsedInstance(src, d).Manifest(ctx)
		} else if data, _, err = src.GetManifest(ctx, d); err == nil { // the library knows sha256 only
			err = streamio.Check(data, *d)
		}
		return err
	})
	if err == nil {
		err = strict.Size("manifest", int64(len(data)), strict.MaxDocument)
	}
	return data, err
}

// Signatures implements signedSource: those that the registry has, or that lie where registries.d says.
func (r *remoteSource) Signatures(ctx context.Context, instance digest.Digest) (all [][]byte, err error) {
	err = r.Ask(ctx, func(ctx context.Context, src types.ImageSource) error {
		signatures, err := image.UnparsedInstance(src, optional(instance)).UntrustedSignatures(ctx)
		if err == nil {
			all, err = signatureFiles(signatures)
		}
		return err
	})
	return all, err
}

// Blob implements Source.
func (r *remoteSource) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	b := &remoteBlob{from: r, ctx: ctx, digest: d}
	if err := r.Retry(ctx, b.open); err != nil {
		return nil, 0, err
	}
	return b, b.size, nil
}

// remoteBlob is the body of a blob. One that ends early or stands still is asked for again, from where it was; what the library
// resumes by itself (by Range, once, and after every MiB) is not seen here. Its errors are those of the network.
type remoteBlob struct {
	from     *remoteSource
	ctx      context.Context
	digest   digest.Digest
	body     io.ReadCloser
	size, at int64
	tries    int
	err      error // comes after what was read with it

	watched *registry.Watch
}

// open asks for the blob and skips what was read.
func (r *remoteBlob) open() error {
	r.watched = r.from.Watch(r.ctx)
	at := r.from.Now()
	body, size, err := (*at).GetBlob(r.watched, types.BlobInfo{Digest: r.digest, Size: -1}, none.NoCache)
	if err == nil {
		r.body, r.size = r.watched.Body(body), size
		if _, err = io.CopyN(io.Discard, r.body, r.at); err != nil {
			_ = body.Close() // only read from
		}
	}
	if err = r.from.Judge(r.ctx, at, registry.Because(r.watched, err)); err != nil {
		r.watched.Stop()
	}
	return err
}

func (r *remoteBlob) Read(p []byte) (int, error) {
	for {
		if r.err == nil {
			n, err := r.body.Read(p)
			r.at += int64(n)
			if err == io.EOF && r.at < r.size {
				err = io.ErrUnexpectedEOF
			}
			if err != io.EOF {
				err = registry.Classify(registry.Because(r.watched, err))
			}
			if r.err = err; n > 0 || err == nil {
				return n, nil
			}
		}
		if r.err == io.EOF || r.tries >= r.from.Retries || !r.from.Passing(r.err) || r.ctx.Err() != nil {
			return 0, r.err
		}
		_ = r.Close() // only read from
		if err := r.from.Wait(r.ctx, r.tries, r.err); err != nil {
			return 0, err
		}
		r.tries++
		r.err = registry.Classify(r.open())
	}
}

func (r *remoteBlob) Close() error {
	r.watched.Stop()
	return r.body.Close()
}
