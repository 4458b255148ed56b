package convert

import (
	"fmt"
	"maps"
	"reflect"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The annotations by which BuildKit ties an attestation to the image it is about.
const (
	referenceType   = "vnd.docker.reference.type"
	referenceDigest = "vnd.docker.reference.digest"
)

// ConvertIndex returns an index whose images have been converted, as an OCI index or (DockerV2S2) a Docker manifest
// list. byOldDigest has, for the digest of each image in it, the new digest and size, and if need be the media type
// (else the one of the format) and the platform (for an entry that names none; a list cannot do without). Images that
// stay as they are, are there too. Class notfound for an image that is not there, unsupported for schema 1, which has no
// index.
//
// What is no image (attestations, other artifacts) need not be in the map. In an OCI index it stays; an attestation
// then points at the new digest of its image, or goes when its image is not in the map. A Docker list has no form for
// them: they are left out. Everything that goes or changes is in the report, digests of images excepted, in the order of
// the source.
func ConvertIndex(data []byte, to Format, byOldDigest map[digest.Digest]ispec.Descriptor) ([]byte, Report, error) {
	out, report, err := convertIndex(data, to, byOldDigest)
	return out, report, kimg.Wrap("index", err)
}

func convertIndex(data []byte, to Format, byOldDigest map[digest.Digest]ispec.Descriptor) ([]byte, Report, error) {
	if to != OCI && to != DockerV2S2 {
		return nil, nil, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: format %s has no index", kimg.Quote(string(to)))
	}
	from, x, err := parseIndex(data)
	if err != nil {
		return nil, nil, err
	}
	c := indexConversion{from: from, to: to, moved: byOldDigest}
	was, now := x, x // without the entries that go
	was.Manifests, now.Manifests = []indexEntry{}, []indexEntry{}
	kept := make([]bool, len(x.Manifests))
	for i, e := range x.Manifests {
		path := fmt.Sprintf("manifests[%d]", i)
		moved, keep, err := c.entry(path, e)
		if err != nil {
			return nil, nil, kimg.Wrap(path, err)
		}
		if kept[i] = keep; keep {
			was.Manifests, now.Manifests = append(was.Manifests, e), append(now.Manifests, moved)
		}
	}
	var out []byte
	if to == from {
		now.Subject = c.subject(x.Subject)
		out, err = c.patch(data, was, now, kept)
	} else if err = c.losses(data, kept); err == nil {
		now.MediaType = indexType(to)
		out, err = encodeIndex(now, to)
	}
	if err == nil {
		err = strict.Size("", int64(len(out)), strict.MaxDocument)
	}
	if err == nil {
		c.report, err = c.report.inOrder(data)
	}
	if err != nil {
		return nil, nil, err
	}
	return out, c.report, nil
}

// indexConversion is one index on its way into a format.
type indexConversion struct {
	from, to Format
	moved    map[digest.Digest]ispec.Descriptor
	report   Report
}

func (c *indexConversion) add(path string, kind Kind, why string) {
	c.report = append(c.report, Change{path, kind, why})
}

// entry returns an entry as it is in the new index, and whether it is there at all.
func (c *indexConversion) entry(path string, e indexEntry) (now indexEntry, keep bool, err error) {
	moved, known := c.moved[e.Digest]
	switch {
	case !e.isImage() && c.to == DockerV2S2 && c.from != c.to:
		c.add(path, Lost, "it is not an image, and a Docker list has images only")
		return e, false, nil
	case e.Annotations[referenceDigest] != "" && !e.isImage():
		if e, keep = c.attestation(path, e); !keep {
			return e, false, nil
		}
	case e.isImage() && !known:
		return e, false, kimg.Errorf(kimg.ErrNotFound, "", "blob-missing: nothing says what became of the image %s", e.Digest)
	}
	if !known {
		return e, true, nil
	}
	return c.move(path, e, moved)
}

// move lets an entry point at what became of its image.
func (c *indexConversion) move(path string, e indexEntry, moved ispec.Descriptor) (indexEntry, bool, error) {
	if err := checkDescriptor(ispec.Descriptor{Digest: moved.Digest, Size: moved.Size}); err != nil {
		return e, false, err
	}
	if moved.Digest == e.Digest && moved.Size != e.Size {
		return e, false, kimg.Errorf(kimg.ErrIntegrity, "", "size: %d bytes where the index says %d", moved.Size, e.Size)
	}
	if moved.Digest != e.Digest {
		if e.Data != nil && c.from == c.to {
			c.add(path+".data", Lost, "it is the old manifest")
		}
		if e.URLs != nil {
			c.add(path+".urls", Lost, "they lead to the old manifest")
		}
		e.Data, e.URLs = nil, nil
	}
	e.Digest, e.Size = moved.Digest, moved.Size
	image := e.isImage()
	switch {
	case moved.MediaType != "":
		e.MediaType = moved.MediaType
	case c.from != c.to && image:
		e.MediaType = c.to.ManifestType()
	}
	if image && !e.isManifest() || c.to == DockerV2S2 && e.MediaType == ispec.MediaTypeImageManifest {
		return e, false, invalid("media-type: an entry of type %s in an index of type %s", kimg.Quote(e.MediaType), indexType(c.to))
	}
	if p := moved.Platform; e.Platform == nil && p != nil {
		e.Platform = dockerPlatform(p)
		c.add(path+".platform", Added, "the index named none; it is the one of the image")
	}
	if e.Platform == nil && image && c.to == DockerV2S2 && c.from != c.to {
		return e, false, kimg.Errorf(kimg.ErrUnsupported, "", "json-type: a Docker list needs the platform of each image, this one has none")
	}
	return e, true, nil
}

// attestation lets an attestation point at the new digest of its image.
func (c *indexConversion) attestation(path string, e indexEntry) (indexEntry, bool) {
	old := e.Annotations[referenceDigest]
	moved, known := c.moved[digest.Digest(old)]
	if !known {
		c.add(path, Lost, "it is about an image that is not in this index")
		return e, false
	}
	if string(moved.Digest) != old {
		e.Annotations = maps.Clone(e.Annotations)
		e.Annotations[referenceDigest] = string(moved.Digest)
		c.add(path+".annotations."+referenceDigest, Changed, "the image has a new digest; the attestation itself still names the old one")
	}
	return e, true
}

// subject lets the index refer to what became of its subject.
func (c *indexConversion) subject(d *ispec.Descriptor) *ispec.Descriptor {
	if d == nil {
		return nil
	}
	moved, known := c.moved[d.Digest]
	if !known {
		c.add("subject", Warning, "it stays as it is; when the subject was converted too, it has another digest now")
		return d
	}
	if moved.Digest == d.Digest {
		return d
	}
	now := *d
	now.Digest, now.Size, now.Data, now.URLs = moved.Digest, moved.Size, nil, nil
	if moved.MediaType != "" {
		now.MediaType = moved.MediaType
	}
	c.add("subject", Changed, "it names what the subject was converted to")
	return &now
}

// losses reports the members that the other format has not, of the entries that are kept. What lists and OCI indexes
// share is all that lists have; OCI reserves the name "features" of a platform, so that goes along.
func (c *indexConversion) losses(data []byte, kept []bool) error {
	_, lost, err := prune(data, reflect.TypeFor[docker.ManifestList](), noPlace(c.to))
	for _, change := range lost {
		i := 0
		if n, _ := fmt.Sscanf(change.Path, "manifests[%d]", &i); n == 0 || kept[i] {
			c.report = append(c.report, change)
		}
	}
	return err
}

// patch writes the difference between two indexes of the same entries onto the source, from which the entries that are
// not kept are removed first.
func (c *indexConversion) patch(data []byte, was, now index, kept []bool) ([]byte, error) {
	if len(was.Manifests) < len(kept) {
		members, err := memberMap(data)
		if err != nil {
			return nil, err
		}
		entries, err := strict.List(members["manifests"])
		if err != nil {
			return nil, err
		}
		left := entries[:0]
		for i, e := range entries {
			if kept[i] {
				left = append(left, e)
			}
		}
		if data, err = setMember(data, "manifests", joinList(left)); err != nil {
			return nil, err
		}
	}
	before, err := encodeIndex(was, c.to)
	if err != nil {
		return nil, err
	}
	after, err := encodeIndex(now, c.to)
	if err != nil {
		return nil, err
	}
	return patch(data, before, after)
}
