package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/internal/strict"
)

// index converts every image of an index, and the index.
func (j *job) index(ctx context.Context, data []byte) (Result, error) {
	v, err := convert.ParseIndex(data)
	if err != nil {
		return Result{}, err
	}
	var lost convert.Report
	if j.signed, lost, err = j.signatures(ctx, ""); err != nil {
		return Result{}, err
	}
	to := j.format(j.at, v.Format)
	if !j.at.index || to == convert.DockerV2S1 {
		return Result{}, kimg.Errorf(kimg.ErrUnsupported, "", "not-an-image: an index of %d images, and the destination holds one; choose it by its platform", len(v.Manifests))
	}
	if j.signed != nil && to != v.Format {
		return Result{}, voided(fmt.Sprintf("an index of format %s becomes one of %s", v.Format, to))
	}
	if !j.o.Keep || to != v.Format {
		if j.o.PreserveDigests {
			return Result{}, kimg.Errorf(kimg.ErrUnsupported, "", "the digest would change: an index of format %s becomes one of %s", v.Format, to)
		}
		j.at.formats = []convert.Format{to} // every image becomes what the index becomes
	} else if j.to == nil && j.dst.Transport().Name() == transportDocker && j.o.Compression == "" {
		for i, d := range v.Manifests {
			if err := registry.Sendable(d.Digest); err != nil {
				return Result{}, kimg.Wrap(fmt.Sprintf("manifests[%d]", i), err)
			}
		}
	}
	r := Result{From: v.Format, To: to, OldDigest: digest.FromBytes(data)}
	err = j.write(ctx, &r, func() ([]byte, string, error) {
		moved := map[digest.Digest]ispec.Descriptor{}
		for i, d := range v.Manifests {
			if _, again := moved[d.Digest]; again || !convert.IsImage(d) {
				continue
			}
			one, at, err := j.instanceImage(ctx, d)
			if err != nil {
				return nil, "", kimg.Wrap(fmt.Sprintf("manifests[%d]", i), err)
			}
			moved[d.Digest] = at
			r.Images = append(r.Images, one)
		}
		out, report := data, convert.Report(nil)
		if to != v.Format || !unchanged(r.Images) {
			if j.signed != nil {
				return nil, "", voided("images of the index do")
			}
			out, report, err = convert.ConvertIndex(data, to, moved)
		}
		report = append(lost, report...)
		if err == nil {
			err = j.checkLosses(report)
		}
		if err == nil {
			err = j.others(ctx, out, moved)
		}
		r.Report, r.NewDigest = report, digest.FromBytes(out)
		return out, indexType(to), err
	})
	if err != nil {
		return Result{}, err
	}
	return r, nil
}

// indexType is the media type of an index in a format.
func indexType(f convert.Format) string {
	if f == convert.DockerV2S2 {
		return "application/vnd.docker.distribution.manifest.list.v2+json"
	}
	return ispec.MediaTypeImageIndex
}

// instanceImage moves one image of an index, its manifest included, and describes it as it is at the destination.
func (j *job) instanceImage(ctx context.Context, d ispec.Descriptor) (Result, ispec.Descriptor, error) {
	manifest, err := j.instance(ctx, d)
	if err != nil {
		return Result{}, ispec.Descriptor{}, err
	}
	files, lost, err := j.signatures(ctx, d.Digest)
	if err != nil {
		return Result{}, ispec.Descriptor{}, err
	}
	p, err := j.readNamed(ctx, j.from, manifest, d.Digest.Algorithm())
	if err != nil {
		return Result{}, ispec.Descriptor{}, err
	}
	p.lost, p.signed = lost, files != nil
	out, err := j.image(ctx, &p)
	if err == nil {
		err = j.putManifest(ctx, out.NewDigest, out.Manifest)
	}
	if err == nil {
		err = j.sign(ctx, d.Digest, files)
	}
	if err != nil {
		return Result{}, ispec.Descriptor{}, err
	}
	if p.noImage != nil {
		return out.Result, d, nil
	}
	config, err := convert.Parse(convert.Document{Format: out.To, Config: out.Config}, nil)
	img := config.Docker()
	at := ispec.Descriptor{
		MediaType: out.mediaType, Digest: out.NewDigest, Size: int64(len(out.Manifest)),
		Platform: &ispec.Platform{OS: img.OS, Architecture: img.Architecture, Variant: img.Variant},
	}
	out.Platform = platformText(at.Platform)
	if d.Platform != nil {
		out.Platform = platformText(d.Platform)
	}
	return out.Result, at, err
}

// putManifest stages the manifest of an image of an index.
func (j *job) putManifest(ctx context.Context, d digest.Digest, manifest []byte) error {
	if to, ok := j.to.(indexDestination); ok {
		return to.PutManifest(ctx, d, manifest)
	}
	return j.putBytes(ctx, d, manifest)
}

// others takes along what an index has besides images: attestations and other artifacts, as they are.
func (j *job) others(ctx context.Context, index []byte, moved map[digest.Digest]ispec.Descriptor) error {
	v, err := convert.ParseIndex(index)
	if err != nil {
		return err
	}
	images := map[digest.Digest]bool{}
	for _, d := range moved {
		images[d.Digest] = true
	}
	for i, d := range v.Manifests {
		if images[d.Digest] {
			continue
		}
		if err := j.other(ctx, d); err != nil {
			return kimg.Wrap(fmt.Sprintf("manifests[%d]", i), err)
		}
	}
	return nil
}

// other takes along one entry that is no image, with the blobs it names.
func (j *job) other(ctx context.Context, d ispec.Descriptor) error {
	manifest, blobs, err := j.blobsOf(ctx, d)
	if err == nil {
		err = j.copyBlobs(ctx, blobs)
	}
	if err != nil || manifest == nil {
		return err
	}
	files, _, err := j.signatures(ctx, d.Digest)
	if err == nil {
		err = j.putManifest(ctx, d.Digest, manifest)
	}
	if err != nil {
		return err
	}
	return j.sign(ctx, d.Digest, files)
}

// copyBlobs takes along any blobs.
func (j *job) copyBlobs(ctx context.Context, blobs []ispec.Descriptor) error {
	for _, d := range blobs {
		if err := strict.Digest(string(d.Digest)); err != nil {
			return err
		}
		if d.Size < 0 {
			return kimg.Errorf(kimg.ErrInvalid, d.Digest.String(), "size: %d bytes", d.Size)
		}
		if err := j.carry(ctx, blobOf(j.from, d.Digest, d.Size)); err != nil {
			return err
		}
	}
	return nil
}

// platformText writes a platform as users do.
func platformText(p *ispec.Platform) string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return kimg.Escape(text, 100)
}

// blobsOf reads an entry of an index that is no image: its manifest, and the blobs that names, each once. What is no manifest is a blob
// itself.
func (j *job) blobsOf(ctx context.Context, d ispec.Descriptor) (manifest []byte, blobs []ispec.Descriptor, err error) {
	if !convert.IsManifest(d) {
		return nil, []ispec.Descriptor{d}, nil
	}
	if manifest, err = j.instance(ctx, d); err == nil {
		blobs, err = namedBy(manifest)
	}
	return manifest, blobs, err
}

// namedBy are the blobs that a manifest of anything names, its configuration first.
func namedBy(manifest []byte) (blobs []ispec.Descriptor, err error) {
	var m ispec.Manifest
	err = strict.UnmarshalExact(manifest, &m)
	seen := map[digest.Digest]bool{}
	for _, d := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if !seen[d.Digest] {
			seen[d.Digest], blobs = true, append(blobs, d)
		}
	}
	return blobs, err
}
