package convert

import (
	"bytes"
	"slices"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// NewIndex returns an OCI index without entries.
func NewIndex() ([]byte, error) {
	return encodeIndex(index{SchemaVersion: 2, MediaType: indexType(OCI), Manifests: []indexEntry{}}, OCI)
}

// SetInIndex returns an index in which d is an entry: the one with its digest becomes d where it is, or d comes last. features
// are those of the CPU, which only Docker has a name for; nil leaves what the entry had. All else stays as it is, byte for byte,
// members of the entry that nobody knows included.
//
// An empty index becomes a Docker list when its first entry is a Docker image, and a Docker list an OCI index when it gets
// an entry that it cannot hold: of another format, with annotations, or without a platform.
func SetInIndex(data []byte, d ispec.Descriptor, features []string) ([]byte, error) {
	out, err := setInIndex(data, indexEntry{d, dockerPlatform(d.Platform)}, features)
	return out, kimg.Wrap("index", err)
}

func setInIndex(data []byte, e indexEntry, features []string) ([]byte, error) {
	f, was, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	empty, err := NewIndex()
	switch listed := e.fitsList(); {
	case err != nil:
		return nil, err
	case listed && bytes.Equal(data, empty):
		f = DockerV2S2
		was.MediaType = indexType(f)
		if data, err = encodeIndex(was, f); err != nil {
			return nil, err
		}
	case !listed && f == DockerV2S2:
		if data, err = was.asOCI(data); err != nil {
			return nil, err
		}
		if f, was, err = parseIndex(data); err != nil {
			return nil, err
		}
	}
	now := was
	now.Manifests = slices.Clone(was.Manifests)
	at := slices.IndexFunc(was.Manifests, func(old indexEntry) bool { return old.Digest == e.Digest })
	if at >= 0 && features == nil && was.Manifests[at].Platform != nil {
		features = was.Manifests[at].Platform.Features
	}
	if len(features) > 0 {
		if e.Platform == nil {
			return nil, invalid("json-type: features of a CPU, and no platform")
		}
		e.Platform.Features = features
	}
	if at < 0 {
		now.Manifests = append(now.Manifests, e)
	} else {
		now.Manifests[at] = e
	}
	if err := now.check(); err != nil {
		return nil, err
	}
	c := indexConversion{from: f, to: f}
	return c.patch(data, was, now, make([]bool, len(was.Manifests)))
}

// asOCI returns a Docker list as an OCI index of the same images.
func (x index) asOCI(data []byte) ([]byte, error) {
	same := map[digest.Digest]ispec.Descriptor{}
	for _, e := range x.Manifests {
		same[e.Digest] = ispec.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size}
	}
	out, _, err := convertIndex(data, OCI, same)
	return out, err
}

// fitsList reports whether a Docker list can hold an entry.
func (e indexEntry) fitsList() bool {
	return e.MediaType == docker.MediaTypeManifest && e.Platform != nil && len(e.Annotations) == 0 && e.ArtifactType == "" && e.Data == nil
}

// dockerPlatform is a platform as Docker has it, nil for nil.
func dockerPlatform(p *ispec.Platform) *docker.Platform {
	if p == nil {
		return nil
	}
	return &docker.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
}
