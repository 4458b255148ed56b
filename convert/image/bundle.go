package image

import (
	"bytes"
	"context"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/store/archive"
)

// bundle is the archive that is being put together, and the destination of one image of it.
type bundle struct {
	archive.Bundle
	c *Converter
	o SaveOptions

	root ispec.Descriptor // of the image that was put in last
}

// forms are what the archives hold.
var forms = map[archive.Form]place{
	archive.Hybrid: {formats: []convert.Format{convert.OCI}, index: true},
	archive.OCI:    {formats: []convert.Format{convert.OCI}, index: true},
	archive.Docker: {formats: []convert.Format{convert.DockerV2S2}, plain: true},
}

// image puts one image into the bundle.
func (b *bundle) image(ctx context.Context, img *toSave) (Saved, error) {
	s := Saved{Names: img.names, ID: img.ID}
	from, err := b.c.openStored(ctx, img.ID)
	if err != nil {
		return s, err
	}
	src := from.(*stored)
	src.apart, src.plain = true, b.o.Form == archive.Docker
	src.everything = b.o.NonDistributable
	if src.list != nil {
		for _, e := range src.list.Entries {
			s.Missing = append(s.Missing, e.Missing...)
		}
		if s.Partial = len(s.Missing) > 0; s.Partial {
			b.c.o.Logger.WarnContext(ctx, "the store has not all of the index", "image", img.ref, "missing", s.Missing)
		}
	}
	j := &job{Converter: b.c, src: InStore(img.ref), from: src, at: forms[b.o.Form], to: b}
	if s.Result, err = j.run(ctx); err == nil && b.o.PreserveDigests && (s.Partial || s.NewDigest != s.OldDigest) {
		err = otherDigest(s, b.o.Form)
	}
	if err != nil {
		return s, err
	}
	out := archive.BundleImage{Names: img.names, Root: b.root}
	if out.Docker, err = b.docker(ctx, s.Result); err == nil {
		b.Images = append(b.Images, out)
	}
	return s, err
}

// otherDigest says why an image has another digest in the archive.
func otherDigest(s Saved, f archive.Form) error {
	why := "the store does not keep the blobs that its layers came as; load or pull it with --keep-blobs"
	switch {
	case f == archive.Docker:
		why = "a docker-archive holds no manifest"
	case s.Partial:
		why = "the store has not all of the index: " + s.Missing[0].String() + " is missing"
	}
	return kimg.Errorf(kimg.ErrUnsupported, "", "the digest would change: %s", why)
}

// docker describes an image, or of an index the image for this machine, else the first, for manifest.json; nil when the bundle has not all
// of its layers.
func (b *bundle) docker(ctx context.Context, r Result) (*archive.DockerImage, error) {
	if r.ConfigDigest == "" && len(r.Images) > 0 {
		index, err := b.document(ctx, r.NewDigest)
		if err != nil {
			return nil, err
		}
		v, err := convert.ParseIndex(index)
		if err != nil {
			return nil, err
		}
		one := r.Images[0]
		if d, ok := v.For(*thisMachine()); ok {
			if i := slices.IndexFunc(r.Images, func(r Result) bool { return r.NewDigest == d.Digest }); i >= 0 {
				one = r.Images[i]
			}
		}
		r = one
	}
	if r.ConfigDigest == "" || r.ConfigDigest.Algorithm() != digest.Canonical { // what manifest.json names is an ID
		return nil, nil
	}
	config, err := b.document(ctx, r.ConfigDigest)
	out := &archive.DockerImage{Config: config}
	for _, l := range r.Layers {
		if _, ok := b.Blobs[l.Digest]; !ok {
			return nil, err
		}
		out.Layers = append(out.Layers, l.Digest)
	}
	return out, err
}

// layers implements planner: nothing is read, but the beginning of blobs that are kept.
func (b *bundle) layers(ctx context.Context, j *job, p *picture) ([]moved, error) {
	all := make([]moved, len(p.blobs))
	for i, blob := range p.blobs {
		size := blob.size
		if p.foreign(i) {
			if !b.o.NonDistributable || blob.open == nil {
				continue
			}
		} else {
			if size < 0 {
				n, err := measureBlob(ctx, blob)
				if err != nil {
					return nil, err
				}
				size = n
			}
			blob.size = size
			diffID := blob.digest // of schema 1, which does not say it, the store has no other form
			if p.diffIDs != nil {
				diffID = p.diffIDs[i]
			}
			_, algorithm, err := j.glance(ctx, blob, diffID)
			if err != nil {
				return nil, err
			}
			all[i] = moved{facts: facts{size: size, compression: algorithm, diffID: diffID}, at: identity{blob.digest, size}}
		}
		b.Blobs[blob.digest] = archive.Blob{Size: size, Write: func(ctx context.Context, w io.Writer) error {
			return b.write(ctx, w, blob)
		}}
	}
	return all, nil
}

// write writes a layer. The store has it checked by the time it comes to its end.
func (b *bundle) write(ctx context.Context, w io.Writer, l blob) (err error) {
	told := b.c.moving(l)
	defer func() { told.End(err) }()
	w = io.MultiWriter(w, told)
	if l.write != nil {
		return kimg.Wrap(l.digest.String(), l.write(ctx, w))
	}
	r, _, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = streamio.Copy(w, streamio.WithContext(ctx, r))
	return kimg.Wrap(l.digest.String(), err)
}

// measureBlob reads a layer whose size nobody has noted.
func measureBlob(ctx context.Context, b blob) (int64, error) {
	r, _, err := b.open(ctx)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return streamio.Copy(io.Discard, r)
}

// Has implements Destination.
func (b *bundle) Has(_ context.Context, d digest.Digest, size int64) (bool, error) {
	have, ok := b.Blobs[d]
	return ok && have.Size == size, nil
}

// Put implements Destination, for documents and what else a list keeps beside images.
func (b *bundle) Put(_ context.Context, want digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	v, err := streamio.NewVerifier(r, size, want)
	if err != nil {
		return "", 0, err
	}
	data, err := io.ReadAll(v)
	if err == nil {
		b.Blobs[want] = archive.Bytes(data)
	}
	return want, int64(len(data)), err
}

// Commit implements Destination.
func (b *bundle) Commit(_ context.Context, manifest []byte, mediaType string) error {
	b.root = ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	b.Blobs[b.root.Digest] = archive.Bytes(manifest)
	return nil
}

// Close implements Destination.
func (b *bundle) Close() error { return nil }

// document returns a document that was put in.
func (b *bundle) document(ctx context.Context, d digest.Digest) ([]byte, error) {
	var out bytes.Buffer
	err := b.Blobs[d].Write(ctx, &out)
	return out.Bytes(), err
}
