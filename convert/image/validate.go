package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
)

// Validation is what was found when an image was checked.
type Validation struct {
	Format       convert.Format
	NoImage      error         // why it is none, class unsupported: a chart, or another artifact
	Digest       digest.Digest // of the manifest or index
	ConfigDigest digest.Digest // empty for schema 1 and indexes
	DiffIDs      []digest.Digest
	Size         int64 // of all layers, compressed as they are, in bytes; foreign ones not counted
	Problems     []error
	Platform     string       // of an image of an index
	Images       []Validation // of an index
}

// Valid reports whether neither the image nor one of its instances has a problem.
func (v Validation) Valid() bool {
	for _, one := range v.Images {
		if !one.Valid() {
			return false
		}
	}
	return len(v.Problems) == 0
}

// Validate checks an image anywhere: its manifest and configuration, the digest and size of every blob, the diff IDs
// against the configuration, how many layers everything speaks of, and labels against the first bytes. Of an index, every image; of what
// is no image, the manifest, and digest and size of every blob.
// With fast, blobs are looked for and not read. What is wrong with the image is in the Validation; the error says that
// it could not be looked at.
func (c *Converter) Validate(ctx context.Context, ref types.ImageReference, fast bool) (Validation, error) {
	src, err := c.openSource(ctx, ref, "")
	if err != nil {
		return Validation{}, kimg.Wrap(label(ref), err)
	}
	defer src.Close()
	j := &job{Converter: c, src: ref, from: src}
	k := &checker{job: j, fast: fast}
	manifest, err := src.Manifest(ctx)
	var v Validation
	if err != nil {
		err = v.note("manifest", err)
	} else if convert.IsIndex(manifest, "") {
		v, err = k.index(ctx, manifest)
	} else {
		v, err = k.image(ctx, manifest)
	}
	return v, kimg.Wrap(label(ref), err)
}

// note keeps what is wrong with an image; what keeps it from being looked at comes back.
func (v *Validation) note(object string, err error) error {
	switch kimg.ClassOf(err) {
	case "":
	case kimg.ErrInvalid, kimg.ErrIntegrity, kimg.ErrNotFound, kimg.ErrLimit, kimg.ErrUnsupported, kimg.ErrUnsafe, kimg.ErrDamaged:
		if object != "" {
			err = kimg.Wrap(object, err)
		}
		v.Problems = append(v.Problems, err)
	default:
		return err
	}
	return nil
}

// checker checks the images of one reference.
type checker struct {
	*job
	fast bool
}

func (k *checker) index(ctx context.Context, data []byte) (Validation, error) {
	v := Validation{Digest: digest.FromBytes(data)}
	view, err := convert.ParseIndex(data)
	if err != nil {
		return v, v.note("", err)
	}
	v.Format = view.Format
	for i, d := range view.Manifests {
		path := fmt.Sprintf("manifests[%d]", i)
		if !convert.IsImage(d) {
			err = v.note(path, k.other(ctx, d))
		} else if manifest, merr := k.instance(ctx, d); merr != nil {
			err = v.note(path, merr)
		} else {
			var one Validation
			one, err = k.image(ctx, manifest)
			if one.Digest = d.Digest; d.Platform != nil {
				one.Platform = platformText(d.Platform)
			}
			v.Images = append(v.Images, one)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

// other checks an entry of an index that is no image: the manifest and the blobs it names.
func (k *checker) other(ctx context.Context, d ispec.Descriptor) error {
	_, blobs, err := k.blobsOf(ctx, d)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := strict.Digest(string(b.Digest)); err != nil {
			return err
		}
		if err := k.blob(ctx, blobOf(k.from, b.Digest, b.Size)); err != nil {
			return err
		}
	}
	return nil
}

func (k *checker) image(ctx context.Context, manifest []byte) (v Validation, err error) {
	if v.Digest, err = convert.ManifestDigest(manifest); err != nil {
		return v, v.note("", err)
	}
	p, err := k.readAny(ctx, k.from, manifest)
	v.Format = p.Format
	if p.Config != nil {
		v.ConfigDigest = p.conf
	}
	if err != nil {
		return v, v.note("", err)
	}
	if p.noImage != nil {
		return v, k.artifact(ctx, &p, &v)
	}
	all := make([]moved, len(p.blobs))
	failed := make([]error, len(p.blobs))
	err = k.parallel(ctx, len(p.blobs), func(ctx context.Context, i int) error {
		if p.foreign(i) {
			return nil
		}
		if k.fast {
			failed[i] = k.blob(ctx, p.blobs[i])
		} else {
			all[i], failed[i] = k.move(ctx, p.blobs[i], nil, keepAll)
		}
		return context.Cause(ctx)
	})
	if err != nil {
		return v, err
	}
	whole := !k.fast
	for i := range all {
		path := fmt.Sprintf("layers[%d]", i)
		err := v.note(path, failed[i])
		if err == nil && !k.fast && failed[i] == nil {
			err = v.note(path, p.labelled(i, all[i]))
		}
		if err != nil {
			return v, err
		}
		whole = whole && failed[i] == nil && !p.foreign(i)
		v.Size += max(all[i].size, p.blobs[i].size, 0)
	}
	return v, v.note("", p.checkDiffIDs(&v, all, whole))
}

// artifact checks what is no image.
func (k *checker) artifact(ctx context.Context, p *picture, v *Validation) error {
	v.NoImage, v.ConfigDigest = p.noImage, p.said[0].Digest
	failed := make([]error, len(p.blobs))
	err := k.parallel(ctx, len(p.blobs), func(ctx context.Context, i int) error {
		failed[i] = k.blob(ctx, p.blobs[i])
		return context.Cause(ctx)
	})
	for i, one := range failed {
		object := "config"
		if i > 0 {
			object = fmt.Sprintf("layers[%d]", i-1)
			v.Size += p.blobs[i].size
		}
		if err == nil {
			err = v.note(object, one)
		}
	}
	return err
}

// checkDiffIDs checks those of the layers against the configuration, as far as they are known.
func (p *picture) checkDiffIDs(v *Validation, all []moved, whole bool) error {
	for _, m := range all {
		v.DiffIDs = append(v.DiffIDs, m.diffID)
	}
	if p.Format == convert.DockerV2S1 {
		if !whole {
			v.DiffIDs = nil
			return nil
		}
		_, err := convert.Parse(p.Document, v.DiffIDs)
		return err
	}
	v.DiffIDs = p.diffIDs
	for i, m := range all {
		if m.diffID != "" && m.diffID != v.DiffIDs[i] {
			wrong := kimg.Errorf(kimg.ErrIntegrity, fmt.Sprintf("rootfs.diff_ids[%d]", i), "diff-id: the layer has %s", m.diffID)
			v.Problems = append(v.Problems, wrong)
		}
	}
	return nil
}

// labelled checks what the manifest says about how a layer is compressed. A schema 1 manifest says nothing, and a
// store keeps its layers in its own way.
func (p *picture) labelled(i int, m moved) error {
	if p.Format == convert.DockerV2S1 || p.foreign(i) || p.blobs[i].digest != p.said[i].Digest {
		return nil
	}
	if says := said(p.said[i].MediaType); says != m.compression() {
		return kimg.Errorf(kimg.ErrInvalid, "", "media-type: the label says %s, the first bytes %s", says, m.compression())
	}
	return nil
}

// blob checks any blob: that it is there with its size, and unless fast its digest.
func (k *checker) blob(ctx context.Context, b blob) error {
	r, size, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	if b.size >= 0 && size >= 0 && size != b.size {
		return sizeError(b, size)
	}
	if k.fast {
		return nil
	}
	v, err := streamio.NewVerifier(streamio.WithContext(ctx, r), b.size, b.digest)
	if err == nil {
		_, err = streamio.Copy(io.Discard, v)
	}
	return err
}
