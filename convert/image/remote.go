package image

import (
	"context"
	"errors"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/registry"
)

// Documents are what an image is, without its layers.
type Documents struct {
	convert.Document                 // empty configuration: of an index, schema 1, or what is no image
	Digest           digest.Digest   // of the manifest
	Index            bool            // the manifest is an index
	Platform         string          // as the configuration says; empty of what is no image
	Image            convert.Config  // the configuration as it was parsed, when there is one
	DiffIDs          []digest.Digest // base first
	Layers           []convert.Layer // as the manifest says
}

// Inspect reads the documents of an image anywhere, when the policy accepts it: of an index the image for Options.Platform, for this
// machine with Options.Single, else the index itself. No layer is read.
func (c *Converter) Inspect(ctx context.Context, src types.ImageReference) (Documents, error) {
	from, err := c.openSource(ctx, src, "")
	if err != nil {
		return Documents{}, kimg.Wrap(label(src), err)
	}
	defer from.Close()
	d, err := (&job{Converter: c, src: src, dst: src, from: from}).inspect(ctx)
	return d, kimg.Wrap(label(src), err)
}

func (j *job) inspect(ctx context.Context) (Documents, error) {
	manifest, err := j.from.Manifest(ctx)
	if err != nil {
		return Documents{}, err
	}
	if convert.IsIndex(manifest, "") {
		want := j.wanted()
		if want == nil { // openSource has asked the policy
			v, err := convert.ParseIndex(manifest)
			return Documents{Document: convert.Document{Format: v.Format, Manifest: manifest}, Digest: digest.FromBytes(manifest), Index: true}, err
		}
		if manifest, _, err = j.choose(ctx, manifest, want); err != nil {
			return Documents{}, err
		}
	}
	p, err := j.readAny(ctx, j.from, manifest)
	if err != nil {
		return Documents{}, err
	}
	d := Documents{Document: p.Document, Digest: p.digest, Image: p.config, DiffIDs: p.diffIDs, Layers: p.said}
	if p.noImage != nil {
		d.Layers = p.said[1:]
		return d, nil
	}
	d.Platform = platformText(&p.platform)
	return d, nil
}

// Tags lists the tags of a repository, of which ref names any image.
func (c *Converter) Tags(ctx context.Context, ref types.ImageReference) ([]string, error) {
	return remotely(ctx, c, ref, func(ctx context.Context) ([]string, error) { return docker.GetRepositoryTags(ctx, c.o.Sys, ref) })
}

// Delete removes the manifest that a tag or a digest leads to from a registry, with every tag it has there.
func (c *Converter) Delete(ctx context.Context, ref types.ImageReference) error {
	_, err := remotely(ctx, c, ref, func(ctx context.Context) (struct{}, error) {
		err := ref.DeleteImage(ctx, c.o.Sys)
		if status := (docker.UnexpectedHTTPStatusError{}); errors.As(err, &status) && status.StatusCode/100 == 2 { // the library knows 202 only
			err = nil
		}
		return struct{}{}, err
	})
	return err
}

// remotely does something with a registry, as patient as with images.
func remotely[T any](ctx context.Context, c *Converter, ref types.ImageReference, do func(context.Context) (T, error)) (T, error) {
	if ref.Transport().Name() != transportDocker {
		var none T
		return none, kimg.Errorf(kimg.ErrUnsupported, label(ref), "not in a registry")
	}
	got, err := registry.Open(ctx, c.at(ref), do)
	return got, kimg.Wrap(label(ref), err)
}
