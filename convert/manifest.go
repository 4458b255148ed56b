package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxLayers is how many layers an image may have: what overlay can stack.
const MaxLayers = 500

// ManifestView is what a schema 2 or OCI manifest says.
type ManifestView struct {
	Format       Format
	MediaType    string           // of the manifest itself, also when it does not say it
	Config       ispec.Descriptor // of the configuration; its media type is one of Format
	Layers       []Layer          // base first, without diff IDs, media types as in the source
	Annotations  map[string]string
	Subject      *ispec.Descriptor          // OCI only
	ArtifactType string                     // OCI only
	Unknown      map[string]json.RawMessage // members of the manifest that the format does not define
}

// ParseManifest reads the manifest of one image, schema 2 or OCI, and checks it as the package documentation says. A
// manifest of something that is no image (an OCI artifact), an index and a schema 1 manifest ([ParseSchema1] reads
// that) are class unsupported.
func ParseManifest(manifest []byte) (ManifestView, error) {
	v, err := parseManifest(manifest, true)
	return v, kimg.Wrap("manifest", err)
}

// ParseAny is [ParseManifest] of what need not be an image: configuration and layers are blobs of any type, as many as there are, whose
// descriptors are checked.
func ParseAny(manifest []byte) (ManifestView, error) {
	v, err := parseManifest(manifest, false)
	return v, kimg.Wrap("manifest", err)
}

func parseManifest(data []byte, image bool) (ManifestView, error) {
	f, err := detect(data, "")
	if err != nil {
		return ManifestView{}, err
	}
	return parseAs(data, f, image)
}

// parseAs parses a manifest of a known format.
func parseAs(data []byte, f Format, image bool) (ManifestView, error) {
	v := ManifestView{Format: f, MediaType: f.ManifestType()}
	m, err := decodeManifest(data, f)
	if err != nil {
		return ManifestView{}, err
	}
	if v.Unknown, err = unknownMembers(data, f); err != nil {
		return ManifestView{}, err
	}
	v.Config, v.Annotations, v.Subject, v.ArtifactType = m.Config, m.Annotations, m.Subject, m.ArtifactType
	if f == DockerV2S2 && saysNothing(m.Config.MediaType) {
		m.Config.MediaType, v.Config.MediaType = f.ConfigType(), f.ConfigType()
	}
	if image {
		err = checkConfigDescriptor(f, m.Config)
	} else {
		err = kimg.Wrap("config", checkDescriptor(m.Config))
	}
	if err != nil {
		return ManifestView{}, err
	}
	if m.Layers == nil {
		return ManifestView{}, invalid("json-type: layers is not a list")
	}
	if image && len(m.Layers) > MaxLayers {
		return ManifestView{}, limit("too-big: %d layers, the limit is %d", len(m.Layers), MaxLayers)
	}
	for i, d := range m.Layers {
		if image {
			err = checkLayerType(d.MediaType)
		}
		if err == nil {
			err = checkDescriptor(d)
		}
		if err != nil {
			return ManifestView{}, kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
		}
		v.Layers = append(v.Layers, Layer{
			Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, URLs: d.URLs, Annotations: d.Annotations,
		})
	}
	return v, nil
}

// decodeManifest reads a manifest of a known format. A Docker manifest has no member that the OCI type has not.
func decodeManifest(data []byte, f Format) (m ispec.Manifest, err error) {
	switch f {
	case OCI:
		err = strict.UnmarshalExact(data, &m)
	case DockerV2S2:
		var d docker.Manifest
		if err = strict.UnmarshalExact(data, &d); err == nil {
			m = fromDocker(d)
		}
	default:
		err = kimg.Errorf(kimg.ErrUnsupported, "", "schema-version: a schema 1 manifest has no configuration and no list of layers to view")
	}
	if err == nil {
		err = haveSizes(data, f)
	}
	return m, err
}

func fromDocker(d docker.Manifest) ispec.Manifest {
	m := ispec.Manifest{MediaType: d.MediaType, Config: ispec.Descriptor{
		MediaType: d.Config.MediaType, Digest: d.Config.Digest, Size: d.Config.Size, URLs: d.Config.URLs,
	}}
	m.SchemaVersion = d.SchemaVersion
	if d.Layers != nil {
		m.Layers = []ispec.Descriptor{}
	}
	for _, l := range d.Layers {
		m.Layers = append(m.Layers, ispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, URLs: l.URLs})
	}
	return m
}

func unknownMembers(data []byte, f Format) (map[string]json.RawMessage, error) {
	members, err := strict.Object(data)
	if err != nil {
		return nil, err
	}
	known := []string{"schemaVersion", "mediaType", "config", "layers"}
	if f == OCI {
		known = append(known, "artifactType", "subject", "annotations")
	}
	var unknown map[string]json.RawMessage
	for _, m := range members {
		if slices.Contains(known, m.Name) {
			continue
		}
		if unknown == nil {
			unknown = map[string]json.RawMessage{}
		}
		unknown[m.Name] = bytes.Clone(m.Value)
	}
	return unknown, nil
}

// saysNothing reports whether a media type is one that early registries put in place of Docker's configuration type.
// Docker reads such manifests as images.
func saysNothing(mediaType string) bool {
	switch mediaType {
	case "", "application/octet-stream", "application/json", "text/html":
		return true
	}
	return false
}

func checkConfigDescriptor(f Format, d ispec.Descriptor) error {
	if d.MediaType != f.ConfigType() {
		if d.MediaType == OCI.ConfigType() || d.MediaType == DockerV2S2.ConfigType() {
			return kimg.Wrap("config", invalid("media-type: a configuration of type %s in a manifest of type %s",
				kimg.Quote(d.MediaType), f.ManifestType()))
		}
		return kimg.Errorf(kimg.ErrUnsupported, "", "not-an-image: the configuration is of type %s", kimg.Quote(d.MediaType))
	}
	if err := strict.Size("config", d.Size, strict.MaxDocument); err != nil {
		return err
	}
	return kimg.Wrap("config", checkDescriptor(d))
}

func checkLayerType(mediaType string) error {
	if mediaType == "" {
		return invalid("media-type: a layer without a type")
	}
	_, err := kindOf(mediaType)
	return err
}

// checkDescriptor checks what any pointer to a blob must fulfil.
func checkDescriptor(d ispec.Descriptor) error {
	if err := strict.Digest(string(d.Digest)); err != nil {
		return err
	}
	if d.Size < 0 {
		return invalid("size: %d bytes", d.Size)
	}
	if d.Data != nil && (int64(len(d.Data)) != d.Size || d.Digest.Algorithm().FromBytes(d.Data) != d.Digest) {
		return kimg.Errorf(kimg.ErrIntegrity, "", "blob-digest: the embedded data is not what the digest says")
	}
	return nil
}

// Manifest writes the manifest of an image in a format, OCI or schema 2, and returns it with its media type. Of config
// it takes digest, size and what else the format can say; the media type follows from the format. Each layer needs
// digest and size; its media type may be of either format and becomes the one of f. No layers is an empty list.
//
// A schema 2 manifest has no annotations: [ManifestLosses] lists what is left out. Class unsupported for a layer that
// the format has no type for (zstd in schema 2).
func Manifest(f Format, config ispec.Descriptor, layers []Layer, annotations map[string]string) (data []byte, mediaType string, err error) {
	data, err = writeManifest(f, config, layers, annotations)
	return data, f.ManifestType(), kimg.Wrap("manifest", err)
}

func writeManifest(f Format, config ispec.Descriptor, layers []Layer, annotations map[string]string) ([]byte, error) {
	if f.ConfigType() == "" {
		return nil, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: a manifest of format %s does not point at a configuration", kimg.Quote(string(f)))
	}
	if len(layers) > MaxLayers {
		return nil, limit("too-big: %d layers, the limit is %d", len(layers), MaxLayers)
	}
	config.MediaType = f.ConfigType()
	if err := checkConfigDescriptor(f, config); err != nil {
		return nil, err
	}
	m := ispec.Manifest{MediaType: f.ManifestType(), Config: config, Layers: []ispec.Descriptor{}, Annotations: annotations}
	m.SchemaVersion = 2
	for i, l := range layers {
		d, err := l.descriptor(f)
		if err != nil {
			return nil, kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
		}
		m.Layers = append(m.Layers, d)
	}
	return encodeManifest(m, f)
}

// encodeManifest writes a manifest that has been checked; what the format has no place for is left out.
func encodeManifest(m ispec.Manifest, f Format) ([]byte, error) {
	var v any = m
	if f == DockerV2S2 {
		v = toDocker(m)
	}
	data, err := strict.Marshal(v)
	if err != nil {
		return nil, err
	}
	return data, strict.Size("", int64(len(data)), strict.MaxDocument)
}

// descriptor points at the layer in the words of a format.
func (l Layer) descriptor(f Format) (ispec.Descriptor, error) {
	kind, err := kindOf(l.MediaType)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	mediaType, err := kind.mediaType(f)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	d := ispec.Descriptor{MediaType: mediaType, Digest: l.Digest, Size: l.Size, URLs: l.URLs, Annotations: l.Annotations}
	return d, checkDescriptor(d)
}

func toDocker(m ispec.Manifest) docker.Manifest {
	d := docker.Manifest{SchemaVersion: m.SchemaVersion, MediaType: m.MediaType, Layers: []docker.Descriptor{}}
	d.Config = docker.Descriptor{MediaType: m.Config.MediaType, Size: m.Config.Size, Digest: m.Config.Digest, URLs: m.Config.URLs}
	for _, l := range m.Layers {
		d.Layers = append(d.Layers, docker.Descriptor{MediaType: l.MediaType, Size: l.Size, Digest: l.Digest, URLs: l.URLs})
	}
	return d
}

// ManifestLosses lists what a manifest of the format cannot say of these layers and annotations, so that a caller of
// [Manifest] can report it. Nothing for OCI.
func ManifestLosses(f Format, layers []Layer, annotations map[string]string) Report {
	if f != DockerV2S2 {
		return nil
	}
	const why = "a Docker manifest has no annotations"
	var report Report
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		report = append(report, Change{"annotations." + key, Lost, why})
	}
	for i, l := range layers {
		for _, key := range slices.Sorted(maps.Keys(l.Annotations)) {
			report = append(report, Change{fmt.Sprintf("layers[%d].annotations.%s", i, key), Lost, why})
		}
	}
	return report
}
