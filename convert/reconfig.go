package convert

import (
	"maps"
	"slices"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// Reconfigured returns a manifest, schema 2 or OCI, that points at another configuration of the same format and has other
// annotations. All other members keep their bytes, known or not, and a manifest that says the same as before is returned
// itself. The report lists annotations that a schema 2 manifest has no place for.
func Reconfigured(manifest, config []byte, annotations map[string]string) ([]byte, Report, error) {
	v, err := ParseManifest(manifest)
	if err != nil {
		return nil, nil, err
	}
	if d := digest.FromBytes(config); d != v.Config.Digest {
		manifest, err = pointAt(manifest, d, len(config))
	}
	switch same := maps.Equal(annotations, v.Annotations); {
	case err != nil || same || v.Format != OCI:
	case len(annotations) == 0:
		manifest, err = without(manifest, "annotations")
	default:
		manifest, err = replaced(manifest, "annotations", annotations)
	}
	return manifest, ManifestLosses(v.Format, nil, annotations), kimg.Wrap("manifest", err)
}

// pointAt changes what the descriptor of the configuration says of its content.
func pointAt(manifest []byte, d digest.Digest, size int) ([]byte, error) {
	members, err := memberMap(manifest)
	if err != nil {
		return nil, err
	}
	descriptor, err := without(members["config"], "data")
	if err == nil {
		descriptor, err = replaced(descriptor, "digest", d)
	}
	if err == nil {
		descriptor, err = replaced(descriptor, "size", size)
	}
	if err != nil {
		return nil, err
	}
	return setMember(manifest, "config", descriptor)
}

// replaced and without return an object with another value of a member, and without it.
func replaced(object []byte, name string, value any) ([]byte, error) {
	raw, err := strict.Marshal(value)
	if err != nil {
		return nil, err
	}
	return setMember(object, name, raw)
}

func without(object []byte, name string) ([]byte, error) {
	members, err := strict.Object(object)
	return joinObject(slices.DeleteFunc(members, func(m strict.Member) bool { return m.Name == name })), err
}
