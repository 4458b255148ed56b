package convert

import (
	"bytes"
	"encoding/json"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Document is one image as bytes: its manifest and its configuration.
type Document struct {
	Format   Format // of both; empty to let the manifest say it
	Manifest []byte // nil when only the configuration is at hand; then nothing ties the two together
	Config   []byte
}

// Config is one image configuration, with all that its source says. It is a value: it never changes, and methods that
// edit return another one. The zero Config has no members; get one from [Parse] or [NewConfig].
type Config struct {
	format Format   // of source; empty for an image from scratch
	source []byte   // as it came; nil for an image from scratch
	base   []byte   // what edits are written onto: the source with its known members spelled as they should be
	raw    []byte   // as it is now
	clean  []byte   // what base is written as when no edit changes it: the source, or base itself
	odd    []string // the members that source spells otherwise

	architecture string // what a schema 1 manifest says beside the configuration
}

// Parse reads an image and checks that manifest and configuration fit together: digest, size, media types, number of
// layers. diffIDs, when not nil, are the digests of the layers as they really are, base first; other ones in the
// configuration are class integrity ("diff-id").
//
// A schema 1 image has its configuration inside its manifest, and does not say its diff IDs: they are those of the
// layers of [Schema1.Layers], and needed. What is read is the schema 2 configuration that [Convert] makes of it.
func Parse(doc Document, diffIDs []digest.Digest) (Config, error) {
	if doc.Manifest != nil {
		f, err := doc.detect()
		if err != nil {
			return Config{}, kimg.Wrap("manifest", err)
		}
		if f == DockerV2S1 {
			return parseSchema1Config(doc, diffIDs)
		}
		v, err := parseAs(doc.Manifest, f, true)
		if err != nil {
			return Config{}, kimg.Wrap("manifest", err)
		}
		return ParseConfig(v, doc.Config, diffIDs)
	}
	switch doc.Format {
	case OCI, DockerV2S2:
	case DockerV2S1:
		return Config{}, kimg.Errorf(kimg.ErrInvalid, "manifest", "schema-version: a schema 1 image is its manifest, and there is none")
	default:
		return Config{}, kimg.Errorf(kimg.ErrUnsupported, "config", "media-type: format %s is not known", kimg.Quote(string(doc.Format)))
	}
	return parseFor(doc.Format, doc.Config, -1, diffIDs)
}

// ParseConfig is [Parse] of an image whose manifest was parsed already.
func ParseConfig(v ManifestView, config []byte, diffIDs []digest.Digest) (Config, error) {
	if err := matches(config, v.Config); err != nil {
		return Config{}, kimg.Wrap("config", err)
	}
	return parseFor(v.Format, config, len(v.Layers), diffIDs)
}

// parseFor reads a configuration that must fit the layers; their number may be -1: not known.
func parseFor(f Format, data []byte, layers int, diffIDs []digest.Digest) (Config, error) {
	c, err := parseConfig(f, data)
	if err == nil {
		err = checkLayers(c.Docker(), layers, diffIDs)
	}
	if err != nil {
		return Config{}, kimg.Wrap("config", err)
	}
	return c, nil
}

// detect returns the format of a document that has a manifest, which must be the one it claims to have.
func (d Document) detect() (Format, error) {
	f, err := detect(d.Manifest, "")
	if err == nil && d.Format != "" && d.Format != f {
		err = invalid("media-type: an image of format %s with a manifest of format %s", kimg.Quote(string(d.Format)), f)
	}
	return f, err
}

// matches checks the bytes of a blob against the descriptor that points at them.
func matches(data []byte, d ispec.Descriptor) error {
	if int64(len(data)) != d.Size {
		return kimg.Errorf(kimg.ErrIntegrity, "", "size: %d bytes where the manifest says %d", len(data), d.Size)
	}
	if d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return kimg.Errorf(kimg.ErrIntegrity, "", "blob-digest: the content is not what the manifest says")
	}
	return nil
}

// parseConfig reads and checks one configuration by itself.
func parseConfig(f Format, data []byte) (Config, error) {
	if err := strict.Size("", int64(len(data)), strict.MaxDocument); err != nil {
		return Config{}, err
	}
	data = bytes.Clone(data) // a Config never changes
	var img docker.Image
	if err := strict.Unmarshal(data, &img); err != nil {
		return Config{}, err
	}
	if err := checkImage(img); err != nil {
		return Config{}, err
	}
	base, odd, err := strict.Respell(data, &img)
	return Config{format: f, source: data, base: base, raw: data, clean: data, odd: odd}, err
}

// NewConfig returns the configuration of an image made from scratch for a platform: no layers, no history, no date,
// the root as working directory and, but on Windows, the usual search path.
func NewConfig(os, arch, variant string) Config {
	img := docker.Image{Architecture: arch, Variant: variant, OS: os, Config: &docker.Config{WorkingDir: "/"}}
	if os != "windows" {
		img.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	img.RootFS = docker.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	raw, _ := json.Marshal(img) // strings, lists and maps always encode
	return Config{base: raw, raw: raw, clean: raw}
}

// Format returns the format the configuration came in; empty for one from scratch.
func (c Config) Format() Format { return c.format }

// Source returns a copy of the bytes the configuration came as; nil for one from scratch.
func (c Config) Source() []byte { return bytes.Clone(c.source) }

// Edited reports whether the configuration says anything else than its source. One from scratch is always edited.
func (c Config) Edited() bool { return !bytes.Equal(c.raw, c.source) || c.source == nil }

// Docker returns the configuration as the superset of all known members. It is a copy: changing it changes nothing
// here. The Config member is never nil.
func (c Config) Docker() docker.Image {
	img := decode(c.raw)
	if img.Config == nil {
		img.Config = &docker.Config{}
	}
	return img
}

// OCI returns what an OCI reader is told by the configuration: its projection on the OCI members, with those that OCI
// requires filled in and bare strings as lists, as [Config.JSON] of a Docker image does. Members unknown to OCI are
// left out. It is a copy.
func (c Config) OCI() ispec.Image {
	if c.raw == nil {
		return ispec.Image{}
	}
	_, img, _, _ := c.projectOCI() // it fails for no configuration that could be parsed or edited
	return img
}

// spelled returns the configuration as it is now, with the known members spelled as they should be.
func (c Config) spelled() (json.RawMessage, Report) {
	if c.Edited() || len(c.odd) == 0 {
		return c.raw, nil
	}
	var report Report
	for _, name := range c.odd {
		report = append(report, Change{name, Changed, "the name is now spelled as the format spells it"})
	}
	return c.base, report
}

// decode reads a configuration that has been checked before.
func decode(raw []byte) docker.Image {
	var img docker.Image
	_ = json.Unmarshal(raw, &img) // every raw of a Config went through strict.Unmarshal into this type
	return img
}
