package convert

import (
	"bytes"
	"cmp"
	"encoding/json"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// JSON returns the configuration as a document of a format, OCI or schema 2, and what had to change for it. Without
// an edit that is the source's own bytes whenever they are valid in the format, always so in the format they came in.
// Members that the format does not define stay where they are: readers of both formats ignore what they do not know,
// and the way back finds them again.
//
// The returned bytes are a copy. Class unsupported for schema 1.
func (c Config) JSON(f Format) ([]byte, Report, error) {
	if c.raw == nil {
		return nil, nil, kimg.Errorf(kimg.ErrInvalid, "config", "there is no configuration")
	}
	raw := bytes.Clone(c.raw)
	switch {
	case f == DockerV2S2, f == OCI && f == c.format && !c.Edited():
		return raw, nil, nil // every OCI configuration is a Docker one
	case f == OCI:
		out, _, report, err := c.projectOCI()
		if err != nil {
			return nil, nil, kimg.Wrap("config", err)
		}
		return out, report, nil
	}
	return nil, nil, kimg.Errorf(kimg.ErrUnsupported, "config", "media-type: format %s has no configurations", kimg.Quote(string(f)))
}

// projectOCI makes a valid OCI configuration of a Docker one, which may already be one: then the document is that
// itself, byte for byte. The document is the caller's to keep.
func (c Config) projectOCI() (document json.RawMessage, img ispec.Image, report Report, err error) {
	raw, report := c.spelled()
	p := projection{raw: bytes.Clone(raw), report: report}
	value := decode(p.raw)
	p.platform(value, c.architecture)
	p.commands(value)
	p.diffIDs(value)
	if p.err == nil {
		p.report, p.err = p.report.inOrder(p.raw)
	}
	if p.err == nil {
		p.err = json.Unmarshal(p.raw, &img)
	}
	return p.raw, img, p.report, p.err
}

// projection is an OCI configuration in the making. After an error its methods do nothing.
type projection struct {
	raw    json.RawMessage
	report Report
	err    error
}

// platform fills in what OCI requires and old Docker images leave out. manifest is the architecture that a schema 1
// manifest names. Docker reads a missing platform as its own; when images without one were made, that was linux on amd64.
func (p *projection) platform(img docker.Image, manifest string) {
	if img.Architecture == "" {
		why := "OCI requires an architecture and the image names none"
		if manifest != "" {
			why = "OCI requires an architecture; it is that of the schema 1 manifest"
		}
		raw, err := strict.Marshal(cmp.Or(manifest, "amd64"))
		if err != nil {
			p.err = err
		}
		p.set("architecture", raw, Added, why)
	}
	if img.OS == "" {
		p.set("os", json.RawMessage(`"linux"`), Added, "OCI requires an operating system and the image names none")
	}
}

// commands turns bare strings into lists of one.
func (p *projection) commands(img docker.Image) {
	if img.Config == nil {
		return
	}
	for _, c := range []struct {
		name string
		list docker.Strings
	}{{"Entrypoint", img.Config.Entrypoint}, {"Cmd", img.Config.Cmd}} {
		if isA('"', p.inner("config", c.name)) {
			p.setInner("config", c.name, c.list, "OCI has a list here; the bare string became a list of one")
		}
	}
}

// diffIDs makes the list of an image without layers a list: OCI does not allow null.
func (p *projection) diffIDs(img docker.Image) {
	if img.RootFS.DiffIDs == nil {
		p.setInner("rootfs", "diff_ids", []string{}, "OCI requires a list, also without layers")
	}
}

// set adds or replaces a top member and reports it.
func (p *projection) set(name string, value json.RawMessage, kind Kind, why string) {
	if p.err == nil {
		p.raw, p.err = setMember(p.raw, name, value)
		p.report = append(p.report, Change{name, kind, why})
	}
}

// inner returns the member of an object that is a top member; nil when either is absent.
func (p *projection) inner(outer, name string) json.RawMessage {
	object := p.raw
	for _, n := range []string{outer, name} {
		if p.err != nil || !isA('{', object) {
			return nil
		}
		var members map[string]json.RawMessage
		members, p.err = memberMap(object)
		object = members[n]
	}
	return object
}

// setInner replaces a member of an object that is a top member, and reports it.
func (p *projection) setInner(outer, name string, value any, why string) {
	if p.err != nil {
		return
	}
	var members map[string]json.RawMessage
	var raw json.RawMessage
	if members, p.err = memberMap(p.raw); p.err != nil {
		return
	}
	if raw, p.err = strict.Marshal(value); p.err != nil {
		return
	}
	if raw, p.err = setMember(members[outer], name, raw); p.err != nil {
		return
	}
	p.raw, p.err = setMember(p.raw, outer, raw)
	p.report = append(p.report, Change{outer + "." + name, Changed, why})
}
