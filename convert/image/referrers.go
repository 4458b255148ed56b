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
	"github.com/kimg/kimg/internal/referrers"
	"github.com/kimg/kimg/internal/strict"
)

// about is a manifest that is about an image, or about another one that is: a signature, an attestation, a list of contents. The image is
// its subject, or a tag that is made of the image's digest leads to it.
type about struct {
	ispec.Descriptor
	manifest []byte
	tag      string
	subject  digest.Digest
}

// maxAbout is how many manifests may be about one image, or about an index with all its images.
const maxAbout = 1000

// aboutTags are what tags end in that cosign makes: signatures, attestations and lists of contents.
var aboutTags = []string{".sig", ".att", ".sbom"}

// tagAbout begins the tags about a manifest; alone it is where registries without an API for it have an index of what is about it
// (distribution specification, "Referrers Tag Schema").
func tagAbout(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// newAbout checks a manifest that says what it is about.
func newAbout(manifest []byte, tag string) (about, error) {
	var m ispec.Manifest
	if err := strict.UnmarshalExact(manifest, &m); err != nil {
		return about{}, err
	}
	a := about{manifest: manifest, tag: tag}
	a.Descriptor = ispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)), ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}
	if a.MediaType == "" {
		a.MediaType = ispec.MediaTypeImageManifest
	}
	if a.ArtifactType == "" && !convert.IsIndex(manifest, "") {
		a.ArtifactType = m.Config.MediaType
	}
	if m.Subject != nil {
		a.subject = m.Subject.Digest
	}
	return a, nil
}

// referrers takes along what is about the images that kept their digests, before the name leads to them: whoever sees the image sees all.
func (j *job) referrers(ctx context.Context, r Result, manifest []byte) error {
	if !j.o.Referrers {
		return nil
	}
	to, ok := j.to.(*remoteDestination)
	var images, left []digest.Digest
	for _, one := range append([]Result{r}, r.Images...) {
		if ok && one.OldDigest == one.NewDigest {
			images = append(images, one.OldDigest)
		} else {
			left = append(left, one.OldDigest)
		}
	}
	j.leave(ctx, left, ok)
	all, err := j.findAbout(ctx, images)
	if err != nil || len(all) == 0 {
		return err
	}
	if err := to.PutManifest(ctx, r.NewDigest, manifest); err != nil { // some registries want to have what it is about
		return err
	}
	return kimg.Wrap(label(j.dst), j.putAbout(ctx, to, all))
}

// leave says what stays behind of what is about images: where there is no place for it, or what it is about is another image now.
func (j *job) leave(ctx context.Context, images []digest.Digest, place bool) {
	all, err := j.findAbout(ctx, images)
	why := "there is no place for it"
	switch {
	case err != nil:
		why = "not found: " + kimg.Line(err)
	case len(all) == 0:
		return
	case place:
		why = "the image has another digest now"
	}
	j.o.Logger.WarnContext(ctx, "what is about the image stays behind", "image", label(j.src), "manifests", len(all), "why", why)
}

// findAbout finds everything about images that the source has, what is about something else after that.
func (j *job) findAbout(ctx context.Context, images []digest.Digest) ([]about, error) {
	if from, ok := j.from.(*stored); ok {
		return from.about(ctx, images)
	}
	from, ok := j.from.(*remoteSource)
	if !ok || len(images) == 0 {
		return nil, nil
	}
	client, err := referrers.New(j.o.Sys, reference.TrimNamed(j.src.DockerReference()), j.patience())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	f := &finder{job: j, from: from, client: client, seen: map[digest.Digest]bool{}}
	for _, d := range images {
		f.seen[d] = true
	}
	for _, d := range images {
		if err := f.subject(ctx, d); err != nil {
			return nil, kimg.Wrap("referrers of "+d.String(), err)
		}
		for _, end := range aboutTags {
			if err := f.tagged(ctx, tagAbout(d)+end); err != nil {
				return nil, kimg.Wrap(tagAbout(d)+end, err)
			}
		}
	}
	return f.all, nil
}

// finder looks for what is about an image in a registry.
type finder struct {
	*job
	from   *remoteSource
	client *referrers.Client
	seen   map[digest.Digest]bool // manifests; also keeps it from going round in circles
	all    []about
}

func (f *finder) found(a about) error {
	if len(f.all) == maxAbout {
		return kimg.Errorf(kimg.ErrLimit, "", "too-big: more than %d manifests are about the image", maxAbout)
	}
	f.all = append(f.all, a)
	return nil
}

// subject finds the manifests whose subject is d, and what is about those.
func (f *finder) subject(ctx context.Context, d digest.Digest) error {
	list, err := f.list(ctx, d)
	if err != nil {
		return err
	}
	for _, entry := range list {
		if f.seen[entry.Digest] {
			continue
		}
		f.seen[entry.Digest] = true
		manifest, err := f.entry(ctx, entry)
		if err != nil {
			return err
		}
		a, err := newAbout(manifest, "")
		if err == nil && a.subject != d {
			err = kimg.Errorf(kimg.ErrInvalid, entry.Digest.String(), "the registry says it is about %s; it says otherwise", d)
		}
		if err == nil {
			err = f.found(a)
		}
		if err == nil {
			err = f.subject(ctx, entry.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry reads a manifest that an index lists.
func (f *finder) entry(ctx context.Context, d ispec.Descriptor) ([]byte, error) {
	if err := strict.Digest(d.Digest.String()); err != nil {
		return nil, err
	}
	manifest, err := f.from.ManifestByDigest(ctx, d.Digest)
	if err == nil && int64(len(manifest)) != d.Size {
		err = sizeError(blob{digest: d.Digest, size: d.Size}, int64(len(manifest)))
	}
	return manifest, kimg.Wrap(d.Digest.String(), err)
}

// list asks for what has d as its subject, and where nobody answers looks under the tag.
func (f *finder) list(ctx context.Context, d digest.Digest) (list []ispec.Descriptor, err error) {
	list, ok, err := f.client.List(ctx, d, maxAbout)
	if err != nil || ok {
		return list, err
	}
	index, err := f.client.Manifest(ctx, tagAbout(d))
	return fallback(index, err)
}

// fallback are the entries of an index that a tag led to, or did not.
func fallback(index []byte, err error) ([]ispec.Descriptor, error) {
	if err != nil || index == nil {
		return nil, err
	}
	v, err := convert.ParseIndex(index)
	if err == nil && len(v.Manifests) > maxAbout {
		err = kimg.Errorf(kimg.ErrLimit, "", "too-big: more than %d manifests are about the image", maxAbout)
	}
	return v.Manifests, err
}

// tagged finds what a tag leads to, with what is in it when it is an index.
func (f *finder) tagged(ctx context.Context, tag string) error {
	manifest, err := f.client.Manifest(ctx, tag)
	if err != nil || manifest == nil {
		return err
	}
	a, err := newAbout(manifest, tag)
	if err != nil {
		return err
	}
	if convert.IsIndex(manifest, "") {
		list, err := fallback(manifest, nil)
		if err != nil {
			return err
		}
		for _, d := range list {
			inside, err := f.entry(ctx, d)
			if err != nil {
				return err
			}
			one, err := newAbout(inside, "")
			if one.subject = ""; err == nil { // the index leads to it
				err = f.found(one)
			}
			if err != nil {
				return err
			}
		}
	}
	return f.found(a)
}

// putAbout sends manifests to the registry with what they name, byte for byte: they are no images, and the policy is not asked.
func (j *job) putAbout(ctx context.Context, to *remoteDestination, all []about) error {
	var subjects []digest.Digest
	of := map[digest.Digest][]about{}
	for _, a := range all {
		var err error
		if !convert.IsIndex(a.manifest, "") {
			err = j.artifact(ctx, a.manifest)
		}
		if err == nil && a.tag == "" {
			err = to.PutManifest(ctx, a.Digest, a.manifest)
		} else if err == nil {
			err = to.name(ctx, a.manifest, a.tag)
		}
		if err != nil {
			return kimg.Wrap(a.Digest.String(), err)
		}
		if a.subject != "" {
			if of[a.subject] == nil {
				subjects = append(subjects, a.subject)
			}
			of[a.subject] = append(of[a.subject], a)
		}
	}
	if len(subjects) == 0 {
		return nil
	}
	client, err := referrers.New(to.sys, reference.TrimNamed(j.dst.DockerReference()), j.patience())
	if err != nil {
		return err
	}
	defer client.Close()
	for _, subject := range subjects {
		_, ok, err := client.List(ctx, subject, maxAbout)
		if err == nil && !ok {
			err = listAbout(ctx, client, to, subject, of[subject])
		}
		if err != nil {
			return kimg.Wrap("referrers of "+subject.String(), err)
		}
	}
	return nil
}

// listAbout adds manifests to the index that a registry without the API has under a tag.
func listAbout(ctx context.Context, client *referrers.Client, to *remoteDestination, subject digest.Digest, all []about) error {
	before, err := client.Manifest(ctx, tagAbout(subject))
	list, err := fallback(before, err)
	if err != nil {
		return err
	}
	known := map[digest.Digest]bool{}
	for _, d := range list {
		known[d.Digest] = true
	}
	n := len(list)
	for _, a := range all {
		if !known[a.Digest] {
			list = append(list, a.Descriptor)
		}
	}
	if len(list) == n {
		return nil
	}
	index := ispec.Index{MediaType: ispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	data, err := strict.Marshal(index)
	if err != nil {
		return err
	}
	return to.name(ctx, data, tagAbout(subject))
}

// artifact moves the blobs that a manifest of anything names.
func (j *job) artifact(ctx context.Context, manifest []byte) error {
	blobs, err := namedBy(manifest)
	if err == nil {
		err = j.copyBlobs(ctx, blobs)
	}
	return err
}

// retagged is another tag of the same repository.
func retagged(ref types.ImageReference, tag string) (types.ImageReference, error) {
	named, err := reference.WithTag(reference.TrimNamed(ref.DockerReference()), tag)
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(tag), "%w", err)
	}
	return docker.NewReference(named)
}
