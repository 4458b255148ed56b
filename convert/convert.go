// Package convert turns the bytes of one image format into the bytes of another.
package convert

import (
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
	DockerV2S1 Format = "v2s1" // Docker image manifest version 2, schema 1
)

// Document is one image as bytes: its manifest and its configuration.
type Document struct {
	Format   Format
	Manifest []byte
	Config   []byte
}

// Layer is one layer of an image.
type Layer struct {
	DiffID      digest.Digest
	Digest      digest.Digest
	Size        int64
	MediaType   string
	URLs        []string
	Annotations map[string]string
}

// Kind says what happened to a member.
type Kind string

// The kinds of change.
const (
	Lost    Kind = "lost"
	Added   Kind = "added"
	Changed Kind = "changed"
	Warning Kind = "warning"
)

// Change is one difference between a source and its conversion.
type Change struct {
	Path string
	Kind Kind
	Why  string
}

// Report lists what a conversion changed.
type Report []Change

// Config is one image configuration.
type Config struct {
	format Format
	source []byte
	raw    []byte
}

func later(what string) error {
	return kimg.Errorf(kimg.ErrUnsupported, what, "under construction")
}

// Detect tells the format of a manifest.
func Detect(manifest []byte, mediaType string) (Format, error) { return "", later("detect") }

// Parse reads an image.
func Parse(doc Document, diffIDs []digest.Digest) (Config, error) { return Config{}, later("parse") }

// NewConfig returns the configuration of an image made from scratch.
func NewConfig(os, arch, variant string) Config { return Config{} }

// Docker returns a copy.
func (c Config) Docker() docker.Image { return docker.Image{} }

// OCI returns a copy.
func (c Config) OCI() ispec.Image { return ispec.Image{} }

// Format returns the format of the source; empty for scratch.
func (c Config) Format() Format { return c.format }

// Edited reports whether the configuration differs from its source.
func (c Config) Edited() bool { return false }

// JSON returns the configuration as a document of a format.
func (c Config) JSON(f Format) ([]byte, Report, error) { return nil, nil, later("json") }

// Edit returns a changed configuration.
func (c Config) Edit(fn func(*docker.Image) error) (Config, error) { return c, later("edit") }

// AddLayer returns the configuration with one more layer on top and the history entry that made it.
func (c Config) AddLayer(diffID digest.Digest, h docker.History) (Config, error) {
	return c, later("add layer")
}

// AddEmpty returns the configuration with one more history entry that made no layer.
func (c Config) AddEmpty(h docker.History) (Config, error) { return c, later("add history") }

// ManifestView is what a manifest says.
type ManifestView struct {
	Format       Format
	MediaType    string
	Config       ispec.Descriptor
	Layers       []Layer // without DiffID
	Annotations  map[string]string
	Subject      *ispec.Descriptor
	ArtifactType string
}

// ParseManifest reads a schema 2 or OCI manifest strictly.
func ParseManifest(manifest []byte) (ManifestView, error) {
	return ManifestView{}, later("manifest")
}

// Manifest writes a manifest. Only MediaType-independent members of config (digest, size) are used.
func Manifest(f Format, config ispec.Descriptor, layers []Layer, annotations map[string]string) (data []byte, mediaType string, err error) {
	return nil, "", later("manifest")
}

// ManifestLosses lists what a manifest of the format cannot say of these layers and annotations.
func ManifestLosses(f Format, layers []Layer, annotations map[string]string) Report { return nil }

// ManifestType and ConfigType return the media types of a format.
func ManifestType(f Format) string { return "" }

// ConfigType returns the media type of the configuration of a format.
func ConfigType(f Format) string { return "" }
