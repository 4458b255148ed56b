package convert

import (
	"fmt"
	"reflect"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxIndex is how many entries an index may have.
const MaxIndex = 10_000

// IndexView is what an OCI index or a Docker manifest list says.
type IndexView struct {
	Format       Format             // OCI, or DockerV2S2 for a list
	MediaType    string             // of the index itself, also when it does not say it
	Manifests    []ispec.Descriptor // in the order of the source: the first that fits a platform is meant
	Annotations  map[string]string  // OCI only
	Subject      *ispec.Descriptor  // OCI only
	ArtifactType string             // OCI only
}

// index is the superset of both kinds of index.
type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []indexEntry      `json:"manifests"`
	Subject       *ispec.Descriptor `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// indexEntry is a descriptor whose platform has all that Docker can say of one.
type indexEntry struct {
	ispec.Descriptor
	Platform *docker.Platform `json:"platform,omitempty"`
}

// IsIndex reports whether a document is an index and no image: the body decides. For a body that cannot be read the
// media type under which it came does, so that the one who reads it gets the fitting error.
func IsIndex(manifest []byte, hint string) bool {
	var k kinds
	if strict.Size("", int64(len(manifest)), strict.MaxDocument) != nil || strict.UnmarshalExact(manifest, &k) != nil {
		return hint == ispec.MediaTypeImageIndex || hint == docker.MediaTypeManifestList
	}
	return k.Manifests != nil
}

// ParseIndex reads an OCI index or a Docker manifest list, and checks it as the package documentation says of
// manifests. Entries may be of any type but an index: class limit ("depth"). Class unsupported for the manifest of one
// image.
func ParseIndex(data []byte) (IndexView, error) {
	f, x, err := parseIndex(data)
	if err != nil {
		return IndexView{}, kimg.Wrap("index", err)
	}
	v := IndexView{Format: f, MediaType: indexType(f), Annotations: x.Annotations, Subject: x.Subject, ArtifactType: x.ArtifactType}
	for _, e := range x.Manifests {
		d := e.Descriptor
		if p := e.Platform; p != nil {
			d.Platform = &ispec.Platform{
				Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant,
			}
		}
		v.Manifests = append(v.Manifests, d)
	}
	return v, nil
}

// indexType is the media type of an index.
func indexType(f Format) string {
	if f == DockerV2S2 {
		return docker.MediaTypeManifestList
	}
	return ispec.MediaTypeImageIndex
}

func parseIndex(data []byte) (Format, index, error) {
	k, err := membersOf(data)
	if err != nil {
		return "", index{}, err
	}
	switch string(k.SchemaVersion) {
	case "2":
	case "":
		return "", index{}, invalid("schema-version: there is none, so this is not an index")
	default:
		return "", index{}, invalid("schema-version: an index has version 2")
	}
	if k.Manifests == nil {
		return "", index{}, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: not an index, it has no manifests")
	}
	f, err := k.index()
	if err != nil {
		return "", index{}, err
	}
	x, err := decodeIndex(data, f)
	if err != nil {
		return "", index{}, err
	}
	return f, x, x.check()
}

// decodeIndex reads an index of a known format.
func decodeIndex(data []byte, f Format) (x index, err error) {
	if f == OCI {
		if err := strict.UnmarshalExact(data, &x); err != nil {
			return index{}, err
		}
		return x, haveSizes(data, f)
	}
	var list docker.ManifestList
	if err := strict.UnmarshalExact(data, &list); err != nil {
		return index{}, err
	}
	if err := haveSizes(data, f); err != nil {
		return index{}, err
	}
	x = index{SchemaVersion: list.SchemaVersion, MediaType: list.MediaType}
	if list.Manifests != nil {
		x.Manifests = []indexEntry{}
	}
	for _, m := range list.Manifests {
		e := indexEntry{Descriptor: ispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size, URLs: m.URLs}}
		if !reflect.ValueOf(m.Platform).IsZero() {
			e.Platform = &m.Platform
		}
		x.Manifests = append(x.Manifests, e)
	}
	return x, nil
}

// encodeIndex writes an index in a format; what the format has no place for is left out.
func encodeIndex(x index, f Format) ([]byte, error) {
	var v any = x
	if f == DockerV2S2 {
		list := docker.ManifestList{SchemaVersion: x.SchemaVersion, MediaType: x.MediaType, Manifests: []docker.ListedManifest{}}
		for _, e := range x.Manifests {
			m := docker.ListedManifest{Descriptor: docker.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size, URLs: e.URLs}}
			if e.Platform != nil {
				m.Platform = *e.Platform
			}
			list.Manifests = append(list.Manifests, m)
		}
		v = list
	}
	data, err := strict.Marshal(v)
	if err != nil {
		return nil, err
	}
	return data, strict.Size("", int64(len(data)), strict.MaxDocument)
}

func (x index) check() error {
	if x.Manifests == nil {
		return invalid("json-type: manifests is not a list")
	}
	if len(x.Manifests) > MaxIndex {
		return limit("too-big: %d entries, the limit is %d", len(x.Manifests), MaxIndex)
	}
	if x.Subject != nil {
		if err := checkDescriptor(*x.Subject); err != nil {
			return kimg.Wrap("subject", err)
		}
	}
	for i, e := range x.Manifests {
		if err := e.check(); err != nil {
			return kimg.Wrap(fmt.Sprintf("manifests[%d]", i), err)
		}
	}
	return nil
}

func (e indexEntry) check() error {
	switch e.MediaType {
	case "":
		return invalid("media-type: an entry without a type")
	case ispec.MediaTypeImageIndex, docker.MediaTypeManifestList:
		return limit("depth: an index inside an index")
	}
	if e.isManifest() {
		if err := strict.Size("", e.Size, strict.MaxDocument); err != nil {
			return err
		}
	}
	return checkDescriptor(e.Descriptor)
}

// isManifest reports whether the entry points at a manifest of any kind: of an image, or of an artifact in the form of
// one.
func (e indexEntry) isManifest() bool {
	switch e.MediaType {
	case ispec.MediaTypeImageManifest, docker.MediaTypeManifest, docker.MediaTypeV1Manifest, docker.MediaTypeV1SignedManifest:
		return true
	}
	return false
}

// isImage reports whether the entry points at an image: a manifest that is no attestation and no other artifact.
func (e indexEntry) isImage() bool {
	switch e.ArtifactType {
	case "", OCI.ConfigType(), DockerV2S2.ConfigType():
	default:
		return false
	}
	nowhere := e.Platform != nil && e.Platform.OS == "unknown" && e.Platform.Architecture == "unknown"
	return e.isManifest() && !nowhere && e.Annotations[referenceType] == ""
}

// IsImage reports whether an entry of an index points at an image: not at an attestation or another artifact.
func IsImage(d ispec.Descriptor) bool {
	e := indexEntry{Descriptor: d}
	if p := d.Platform; p != nil {
		e.Platform = &docker.Platform{OS: p.OS, Architecture: p.Architecture}
	}
	return e.isImage()
}

// IsManifest reports whether an entry of an index points at a manifest of any kind, and not at a bare blob.
func IsManifest(d ispec.Descriptor) bool { return indexEntry{Descriptor: d}.isManifest() }

// AttestationOf returns the digest of the image that an entry of an index is an attestation about; "": it is none.
func AttestationOf(d ispec.Descriptor) digest.Digest {
	if d.Annotations[referenceType] == "" {
		return ""
	}
	return digest.Digest(d.Annotations[referenceDigest])
}
