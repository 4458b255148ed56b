package convert

import (
	"maps"
	"slices"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Reconfigured returns a manifest, schema 2 or OCI, that points at another configuration of the same format and has other
// annotations. All else stays as it is, byte for byte: the layers, members nobody knows, and the whole manifest when nothing
// is different. The report lists annotations that a schema 2 manifest has no place for.
func Reconfigured(manifest, config []byte, annotations map[string]string) ([]byte, Report, error) {
	v, err := ParseManifest(manifest)
	if err != nil {
		return nil, nil, err
	}
	report := ManifestLosses(v.Format, nil, annotations)
	d := v.Config
	d.Digest, d.Size, d.Data = digest.FromBytes(config), int64(len(config)), nil
	if d.Digest != v.Config.Digest {
		manifest, err = replaced(manifest, "config", descriptorOf(v.Format, d))
	}
	switch same := maps.Equal(annotations, v.Annotations); {
	case err != nil || same || v.Format != OCI:
	case len(annotations) == 0:
		manifest, err = without(manifest, "annotations")
	default:
		manifest, err = replaced(manifest, "annotations", annotations)
	}
	return manifest, report, kimg.Wrap("manifest", err)
}

// descriptorOf is a descriptor with the members that a format has.
func descriptorOf(f Format, d ispec.Descriptor) any {
	if f == OCI {
		return d
	}
	return docker.Descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest, URLs: d.URLs}
}

func without(object []byte, name string) ([]byte, error) {
	members, err := strict.Object(object)
	return joinObject(slices.DeleteFunc(members, func(m strict.Member) bool { return m.Name == name })), err
}

func replaced(object []byte, name string, value any) ([]byte, error) {
	raw, err := strict.Marshal(value)
	if err != nil {
		return nil, err
	}
	return setMember(object, name, raw)
}
