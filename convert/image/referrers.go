package image

import (
	"context"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// aboutTags are what tags end in that name what is about an image: an index of referrers (the OCI distribution specification's fallback),
// and cosign's signatures, attestations and lists of contents. They begin with the image's digest.
var aboutTags = []string{"", ".sig", ".att", ".sbom"}

// referrers takes along, between registries, what tags say is about the images that kept their digests.
func (j *job) referrers(ctx context.Context, r Result) error {
	if !j.o.Referrers || j.src.Transport().Name() != transportDocker || j.dst.Transport().Name() != transportDocker {
		return nil
	}
	for _, one := range append([]Result{r}, r.Images...) {
		if one.OldDigest != one.NewDigest {
			continue
		}
		for _, end := range aboutTags {
			tag := one.OldDigest.Algorithm().String() + "-" + one.OldDigest.Encoded() + end
			if err := j.alongside(ctx, tag); err != nil {
				return kimg.Wrap(tag, err)
			}
		}
	}
	return nil
}

// alongside takes along what a tag leads to, if there is anything, byte for byte. It is no image: the policy is not asked.
func (j *job) alongside(ctx context.Context, tag string) error {
	src, err := retagged(j.src, tag)
	if err != nil {
		return err
	}
	dst, err := retagged(j.dst, tag)
	if err != nil {
		return err
	}
	from, err := openRegistry(ctx, src, j.o.Sys, j.patience())
	if err != nil {
		if kimg.ClassOf(err) == kimg.ErrNotFound {
			return nil
		}
		return err
	}
	defer from.Close()
	to, err := j.createRemote(ctx, dst)
	if err != nil {
		return err
	}
	defer to.Close()
	to.also = nil
	k := &job{Converter: j.Converter, src: src, dst: dst, from: from, to: to}
	manifest, err := from.Manifest(ctx)
	if err == nil && convert.IsIndex(manifest, "") {
		err = k.artifacts(ctx, manifest)
	} else if err == nil {
		err = k.artifact(ctx, manifest)
	}
	if err != nil {
		return err
	}
	return to.Commit(ctx, manifest, "")
}

// artifacts moves what an index of referrers lists.
func (j *job) artifacts(ctx context.Context, index []byte) error {
	v, err := convert.ParseIndex(index)
	if err != nil {
		return err
	}
	for _, d := range v.Manifests {
		manifest, err := j.from.ManifestByDigest(ctx, d.Digest)
		if err == nil {
			err = j.artifact(ctx, manifest)
		}
		if err == nil {
			err = j.putManifest(ctx, d.Digest, manifest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// artifact moves the blobs that a manifest of anything names.
func (j *job) artifact(ctx context.Context, manifest []byte) error {
	var m ispec.Manifest
	if err := strict.UnmarshalExact(manifest, &m); err != nil {
		return err
	}
	done := map[digest.Digest]bool{}
	for _, blob := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if done[blob.Digest] {
			continue
		}
		if err := j.copyBlob(ctx, blob); err != nil {
			return err
		}
		done[blob.Digest] = true
	}
	return nil
}

// retagged is another tag of the same repository.
func retagged(ref types.ImageReference, tag string) (types.ImageReference, error) {
	named, err := reference.WithTag(reference.TrimNamed(ref.DockerReference()), tag)
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(tag), "%w", err)
	}
	return docker.NewReference(named)
}
