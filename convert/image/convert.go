package image

import (
	"bytes"
	"context"
	"runtime"
	"slices"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
)

// Convert reads the image at src and writes it to dst in the format of the options. When it returns nil the image is there
// and durable; otherwise dst is what it was before. A reference with the class unsupported names what to do instead.
//
// An index is converted with all its images where the destination can hold one; Options.Platform takes one of them. What
// went wrong with the source names src, what went wrong with writing names dst.
func (c *Converter) Convert(ctx context.Context, src, dst types.ImageReference) (Result, error) {
	at, err := c.place(dst)
	if err != nil {
		return Result{}, kimg.Wrap(label(dst), err)
	}
	from, err := c.openSource(ctx, src, tempDir(dst))
	if err != nil {
		return Result{}, kimg.Wrap(label(src), err)
	}
	defer from.Close()
	j := &job{Converter: c, src: src, dst: dst, from: from, at: at}
	r, err := j.run(ctx)
	for _, do := range j.after {
		if err == nil {
			do()
		}
	}
	return r, kimg.Wrap(label(src), err)
}

// job is one conversion.
type job struct {
	*Converter
	src, dst types.ImageReference
	from     Source
	at       place
	to       Destination // nil: the store
	after    []func()    // to do when it is done
	signed   [][]byte    // signatures that go along with what is committed
}

func (j *job) run(ctx context.Context) (Result, error) {
	manifest, err := j.from.Manifest(ctx)
	if err != nil {
		return Result{}, err
	}
	var chosen digest.Digest
	if convert.IsIndex(manifest, "") {
		want := j.wanted()
		if want == nil && NamesStore(j.src) && !j.at.index { // a list of the store is the image for this machine, as for every command
			want = thisMachine()
		}
		if want == nil && j.o.Keep && NamesStore(j.dst) {
			return j.pullIndex(ctx, manifest)
		}
		if want == nil {
			return j.index(ctx, manifest)
		}
		if manifest, chosen, err = j.choose(ctx, manifest, want); err != nil {
			return Result{}, err
		}
	}
	var lost convert.Report
	if j.signed, lost, err = j.signatures(ctx, chosen); err != nil {
		return Result{}, err
	}
	if j.o.Keep && NamesStore(j.dst) {
		return j.pull(ctx, manifest)
	}
	p, err := j.readAny(ctx, j.from, manifest)
	if err == nil && NamesStore(j.dst) {
		err = p.noImage
	}
	if err != nil {
		return Result{}, err
	}
	p.lost, p.signed = lost, j.signed != nil
	if j.to == nil && NamesStore(j.dst) {
		return j.intoStore(ctx, &p)
	}
	var r Result
	err = j.write(ctx, &r, func() (data []byte, mediaType string, err error) {
		var out written
		if out, err = j.image(ctx, &p); err != nil {
			return nil, "", err
		}
		r = out.Result
		return out.Manifest, out.mediaType, nil
	})
	if err != nil {
		return Result{}, err
	}
	return r, nil
}

// wanted is the platform of the one image of an index that is meant; nil: the index is.
func (c *Converter) wanted() *ispec.Platform {
	if c.o.Platform == nil && c.o.Single {
		return thisMachine()
	}
	return c.o.Platform
}

func thisMachine() *ispec.Platform { return &ispec.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// write opens the destination, lets stage fill it and r, and publishes what stage returns.
func (j *job) write(ctx context.Context, r *Result, stage func() (manifest []byte, mediaType string, err error)) (err error) {
	if j.to != nil { // one of several images there
		manifest, mediaType, err := stage()
		if err == nil {
			err = j.to.Commit(ctx, manifest, mediaType)
		}
		return err
	}
	if j.to, err = j.openDestination(ctx, j.dst); err != nil {
		return kimg.Wrap(label(j.dst), err)
	}
	defer func() {
		if cerr := j.to.Close(); err == nil && cerr != nil {
			err = kimg.Wrap(label(j.dst), cerr)
		}
	}()
	if err := j.sign(ctx, "", j.signed); err != nil {
		return err
	}
	manifest, mediaType, err := stage()
	if err == nil {
		err = j.referrers(ctx, *r, manifest)
	}
	if err != nil {
		return err
	}
	return kimg.Wrap(label(j.dst), j.to.Commit(ctx, manifest, mediaType))
}

// written is an image whose blobs are staged and whose manifest is not.
type written struct {
	convert.Document
	Result
	mediaType string
}

// image moves one image to the destination, all but its manifest.
func (j *job) image(ctx context.Context, p *picture) (written, error) {
	to := j.format(j.at, p.Format)
	if err := p.fits(j.at, to); err != nil {
		return written{}, err
	}
	stays, err := j.stays(ctx, p)
	if err == nil && !stays {
		err = p.noImage
	}
	if err != nil {
		return written{}, err
	}
	if stays {
		return j.asItIs(ctx, p)
	}
	_, stored := j.from.(*stored)
	var all []moved
	if b, ok := j.to.(*bundle); ok {
		all, err = b.layers(ctx, j, p)
	} else {
		all, err = j.layers(ctx, p, j.to, j.at.shape(to, stored, compression.Algorithm(j.o.Compression)))
	}
	if err != nil {
		return written{}, err
	}
	out, err := j.document(p, to, all)
	if err != nil {
		return out, err
	}
	j.after = append(j.after, func() { j.learnPacked(ctx, p, all) })
	if j.o.Proof {
		after, err := j.readBack(&out.Result)
		if err == nil {
			err = j.prove(ctx, p, &out.Result, after)
		}
		if err != nil {
			return out, err
		}
	}
	if out.Config != nil {
		return out, j.putBytes(ctx, out.ConfigDigest, out.Config)
	}
	s, err := convert.ParseSchema1(out.Manifest)
	if err == nil && len(s.Empty) > 0 {
		blob, _ := convert.EmptyLayer()
		err = j.putBytes(ctx, digest.FromBytes(blob), blob)
	}
	return out, err
}

// putBytes stages a small blob.
func (j *job) putBytes(ctx context.Context, d digest.Digest, data []byte) error {
	if there, err := j.to.Has(ctx, d, int64(len(data))); err != nil || there {
		return err
	}
	_, _, err := j.to.Put(ctx, d, int64(len(data)), newReader(data))
	return err
}

// fits refuses early what cannot be at the destination.
func (p *picture) fits(at place, to convert.Format) error {
	for i := range p.said {
		if p.foreign(i) && (at.plain || to == convert.DockerV2S1) {
			return kimg.Errorf(kimg.ErrUnsupported, "", "media-type: layers[%d] is foreign; it is not fetched, and the destination cannot hold its descriptor", i)
		}
	}
	return nil
}

// document writes the documents for layers that are at the destination, and checks that nothing is lost if nothing may be.
func (j *job) document(p *picture, to convert.Format, all []moved) (written, error) {
	o := j.o.Convert
	if to == convert.DockerV2S1 {
		o = j.named(p, o)
	}
	doc, report, err := convert.Convert(p.Document, to, p.atDestination(all), o)
	if err != nil {
		return written{}, err
	}
	report = append(slices.Clone(p.lost), report...)
	out := written{Document: doc, mediaType: mediaType(to)}
	out.Result = Result{From: p.Format, To: to, OldDigest: p.digest, KeyIDs: p.keyIDs, Report: report}
	if out.NewDigest, err = convert.ManifestDigest(doc.Manifest); err != nil {
		return out, err
	}
	if bytes.Equal(doc.Manifest, p.Manifest) {
		out.NewDigest = p.digest
	}
	if doc.Config != nil {
		out.ConfigDigest = digest.FromBytes(doc.Config)
		if to == p.Format && p.conf.Algorithm().FromBytes(doc.Config) == p.conf {
			out.ConfigDigest = p.conf
		}
	}
	for i, m := range all {
		if p.Format == convert.DockerV2S1 && o.EmptyLayers == convert.EmptyContent && m.empty {
			continue
		}
		l := Layer{Digest: m.at.digest, DiffID: m.diffID, Size: m.at.size, Compression: m.compression(), Recompressed: m.form != keep}
		if p.foreign(i) {
			l = Layer{Digest: p.said[i].Digest, Size: p.said[i].Size}
		}
		out.Layers = append(out.Layers, l)
		if p.Format == convert.DockerV2S1 {
			out.DiffIDs = append(out.DiffIDs, l.DiffID)
		}
	}
	if p.diffIDs != nil {
		out.DiffIDs = p.diffIDs // also those of foreign layers
	}
	return out, j.checkLosses(report)
}

// mediaType is the type of a manifest in a format; an unsigned one of schema 1.
func mediaType(f convert.Format) string {
	if f == convert.DockerV2S1 {
		return "application/vnd.docker.distribution.manifest.v1+json"
	}
	return f.ManifestType()
}

func (j *job) checkLosses(report convert.Report) error {
	if !j.o.FailOnLoss {
		return nil
	}
	for _, change := range report {
		if change.Kind == convert.Lost {
			return kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(change.Path, 200), "would be lost: %s", change.Why)
		}
	}
	return nil
}

// named completes the name that a schema 1 manifest holds: that of the source, the repository without its host.
func (j *job) named(p *picture, o convert.Options) convert.Options {
	if p.Format == convert.DockerV2S1 || o.Name != "" {
		return o
	}
	name := j.dst.DockerReference() // a registry takes no other
	if name == nil {
		name = j.src.DockerReference()
	}
	if name != nil {
		o.Name = reference.Path(name)
		if tagged, ok := name.(reference.Tagged); ok && o.Tag == "" {
			o.Tag = tagged.Tag()
		}
	}
	return o
}

// choose returns the manifest of the image of an index for the platform that was asked for, and its digest there.
func (j *job) choose(ctx context.Context, index []byte, want *ispec.Platform) (manifest []byte, _ digest.Digest, err error) {
	v, err := convert.ParseIndex(index)
	if err != nil {
		return nil, "", err
	}
	d, ok := v.For(*want)
	if ok {
		manifest, err = j.instance(ctx, d)
	}
	if ok && err == nil && d.Platform == nil {
		var p picture
		p, err = j.readAny(ctx, j.from, manifest)
		ok = convert.PlatformRank(*want, p.platform) >= 0
	}
	if err == nil && !ok {
		err = kimg.Errorf(kimg.ErrNotFound, "", "the index has no image for %s", platformText(want))
	}
	return manifest, d.Digest, err
}

// instance reads the manifest of one image of an index, when the policy accepts it.
func (j *job) instance(ctx context.Context, d ispec.Descriptor) ([]byte, error) {
	manifest, err := j.from.ManifestByDigest(ctx, d.Digest)
	if err == nil && int64(len(manifest)) != d.Size {
		err = sizeError(blob{digest: d.Digest, size: d.Size}, int64(len(manifest)))
	}
	if err == nil {
		err = j.judge(ctx, j.src, j.from, &d.Digest)
	}
	return manifest, err
}
