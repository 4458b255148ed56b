package convert

import (
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Format is an image format.
type Format string

// The image formats.
const (
	OCI        Format = "oci"  // OCI image specification, version 1
	DockerV2S2 Format = "v2s2" // Docker image manifest version 2, schema 2
	DockerV2S1 Format = "v2s1" // Docker image manifest version 2, schema 1; its configuration is inside the manifest
)

// ManifestType returns the media type of a manifest in the format, of schema 1 the one without signatures: kimg writes
// no others. It is empty for an unknown format.
func (f Format) ManifestType() string {
	switch f {
	case OCI:
		return ispec.MediaTypeImageManifest
	case DockerV2S2:
		return docker.MediaTypeManifest
	case DockerV2S1:
		return docker.MediaTypeV1Manifest
	}
	return ""
}

// ConfigType returns the media type of an image configuration in the format; empty for schema 1, which has no
// configuration of its own, and for an unknown format.
func (f Format) ConfigType() string {
	switch f {
	case OCI:
		return ispec.MediaTypeImageConfig
	case DockerV2S2:
		return docker.MediaTypeConfig
	}
	return ""
}

// Layer is one layer of an image, as a manifest names it.
type Layer struct {
	DiffID      digest.Digest     // of the uncompressed tar; empty when not known
	Digest      digest.Digest     // of the blob
	Size        int64             // of the blob, in bytes
	MediaType   string            // of either format; empty means an uncompressed tar
	URLs        []string          // where a foreign layer can be had
	Annotations map[string]string // OCI only
	Empty       bool              // the tar has no entries, only zero bytes; looked at with [EmptyContent] only
}

// foreignLayer is the type of a layer that must not be distributed. The specification advises against new ones, so its
// Go package deprecates the name; old images have them all the same, and a foreign layer stays one.
const foreignLayer = "application/vnd.oci.image.layer.nondistributable.v1.tar"

// Foreign reports whether a layer of a media type may not be distributed: its bytes need not be where its descriptor is.
func Foreign(mediaType string) bool {
	return strings.Contains(mediaType, ".nondistributable.") || strings.Contains(mediaType, ".foreign.")
}

// layerKind is what the media type of a layer says, in the words of no format.
type layerKind struct {
	compression string // "", "gzip" or "zstd"
	foreign     bool   // not to be distributed
}

// kindOf reads the media type of a layer, of whichever format. Class unsupported for encrypted and unknown ones.
func kindOf(mediaType string) (layerKind, error) {
	switch mediaType {
	case "", ispec.MediaTypeImageLayer, docker.MediaTypeLayer:
		return layerKind{}, nil
	case ispec.MediaTypeImageLayerGzip, docker.MediaTypeLayerGzip:
		return layerKind{compression: "gzip"}, nil
	case ispec.MediaTypeImageLayerZstd, docker.MediaTypeLayerZstd:
		return layerKind{compression: "zstd"}, nil
	case foreignLayer, docker.MediaTypeForeignLayer:
		return layerKind{foreign: true}, nil
	case foreignLayer + "+gzip", docker.MediaTypeForeignLayerGzip:
		return layerKind{"gzip", true}, nil
	case foreignLayer + "+zstd":
		return layerKind{"zstd", true}, nil
	}
	if strings.HasSuffix(mediaType, "+encrypted") {
		return layerKind{}, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: the layer is encrypted")
	}
	return layerKind{}, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: unknown layer type %s", kimg.Quote(mediaType))
}

// mediaType returns the label of such a layer in a format. Class unsupported when the format has none.
func (k layerKind) mediaType(f Format) (string, error) {
	base, sep := ispec.MediaTypeImageLayer, "+"
	switch {
	case f == OCI && k.foreign:
		base = foreignLayer
	case f == DockerV2S2 && k.compression == "zstd":
		return "", kimg.Errorf(kimg.ErrUnsupported, "", "media-type: a Docker manifest cannot have a zstd layer")
	case f == DockerV2S2 && k.foreign:
		base, sep = docker.MediaTypeForeignLayer, "."
	case f == DockerV2S2:
		base, sep = docker.MediaTypeLayer, "."
	}
	if k.compression == "" {
		return base, nil
	}
	return base + sep + k.compression, nil
}

// Kind says what happened to a member of a document.
type Kind string

// The kinds of change.
const (
	Lost    Kind = "lost"    // the target has no place for it
	Added   Kind = "added"   // the target needs it and the source has none
	Changed Kind = "changed" // it had to take another form
	Warning Kind = "warning" // nothing changed, but somebody should look
)

// Change is one difference between a source and what was written.
type Change struct {
	Path string // JSON path of the member: "config.Cmd", "layers[3].annotations"
	Kind Kind
	Why  string // one plain sentence
}

// String returns the change as one line.
func (c Change) String() string { return string(c.Kind) + " " + c.Path + ": " + c.Why }

// Report lists the differences between a source and what was written, in the order of the document. Empty: nothing
// was lost, added or changed.
type Report []Change
