package convert

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fitting is a schema 2 or OCI manifest on its way into a format, with the layers that are at the destination.
type fitting struct {
	from, to Format
	m        ispec.Manifest
	layers   []Layer // those of m, with diff IDs
	report   Report
}

// fitManifest reads a manifest that Parse accepted and gives it the layers of the destination (nil: those it has).
func fitManifest(doc Document, to Format, layers []Layer, diffIDs []digest.Digest) (fitting, error) {
	m, err := decodeManifest(doc.Manifest, doc.Format)
	if err != nil {
		return fitting{}, err
	}
	f := fitting{from: doc.Format, to: to, m: m}
	if layers != nil && len(layers) != len(m.Layers) {
		return fitting{}, invalid("count: %d layers are given, the manifest has %d", len(layers), len(m.Layers))
	}
	m.Layers = append([]ispec.Descriptor{}, m.Layers...)
	for i, d := range m.Layers {
		l := Layer{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType}
		if layers != nil {
			l = layers[i]
		}
		if l.DiffID != "" && l.DiffID != diffIDs[i] {
			err = kimg.Errorf(kimg.ErrIntegrity, "", "diff-id: not the one that the configuration says")
		}
		if err == nil {
			m.Layers[i], err = f.layer(fmt.Sprintf("layers[%d]", i), d, l)
		}
		if err != nil {
			return fitting{}, kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
		}
		d = m.Layers[i]
		f.layers = append(f.layers, Layer{
			DiffID: diffIDs[i], Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, URLs: d.URLs, Annotations: d.Annotations, Empty: l.Empty,
		})
	}
	f.m = m
	if to == DockerV2S1 && m.Config.URLs != nil {
		f.add("config.urls", Lost, noPlace(to))
	}
	if f.from != to { // what schema 2 and OCI share is all that schema 2 has
		_, lost, err := prune(doc.Manifest, reflect.TypeFor[docker.Manifest](), noPlace(to))
		if err != nil {
			return fitting{}, err
		}
		f.report = append(f.report, lost...)
	}
	return f, nil
}

// noPlace says why a member of a manifest or an index is lost on the way into a format.
func noPlace(f Format) string {
	switch f {
	case DockerV2S2:
		return "schema 2 has no place for it"
	case DockerV2S1:
		return "schema 1 has no place for it"
	}
	return "Docker does not define it, so nobody knows what it says"
}

// layer returns the descriptor was of the source for the blob l of the destination.
func (f *fitting) layer(path string, was ispec.Descriptor, l Layer) (ispec.Descriptor, error) {
	if err := checkDescriptor(ispec.Descriptor{Digest: l.Digest, Size: l.Size}); err != nil {
		return was, err
	}
	had, err := kindOf(was.MediaType)
	if err != nil {
		return was, err
	}
	kind, err := kindOf(l.MediaType)
	if err != nil {
		return was, err
	}
	kind.foreign = had.foreign // no blob shows that
	now := was
	if l.Digest == was.Digest {
		if l.Size != was.Size {
			return was, kimg.Errorf(kimg.ErrIntegrity, "", "size: %d bytes where the manifest says %d", l.Size, was.Size)
		}
		if kind != had {
			f.add(path+".mediaType", Changed, "the label did not say how the layer is compressed")
		}
	} else {
		kind.foreign = false // nobody else has this blob
		now.Digest, now.Size, now.URLs, now.Data = l.Digest, l.Size, nil, nil
		f.add(path+".digest", Changed, "the layer was compressed anew; what it unpacks to is the same")
		now.Annotations = ofForm(was.Annotations, l.Annotations)
		if !maps.Equal(now.Annotations, was.Annotations) {
			f.add(path+".annotations", Changed, "those that say where in the blob things are, or how it is encrypted, are about the old blob")
		}
		if had.foreign {
			f.add(path+".mediaType", Changed, "the new blob has no other source, so the layer is an ordinary one")
		}
		if was.URLs != nil {
			f.add(path+".urls", Lost, "they lead to the old blob")
		}
		if was.Data != nil && f.from == f.to {
			f.add(path+".data", Lost, "it is the old blob")
		}
	}
	switch {
	case f.to == DockerV2S1: // it has no label, but what it can hold depends on it
		if now.URLs != nil {
			f.add(path+".urls", Lost, noPlace(f.to))
		}
		now.MediaType, err = kind.mediaType(OCI)
	case kind != had || f.from != f.to:
		now.MediaType, err = kind.mediaType(f.to)
	}
	return now, err
}

// OfForm tells whether an annotation of a layer is about one compressed form of it: it says where in the blob something lies, or how
// that is encrypted.
func OfForm(key string) bool {
	for _, prefix := range []string{"io.github.containers.zstd-chunked.", "io.containers.estargz.", "containerd.io/snapshot/stargz/", "org.opencontainers.image.enc."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// ofForm gives a layer that has another form the annotations of that.
func ofForm(was, form map[string]string) map[string]string {
	now := maps.Clone(was)
	maps.DeleteFunc(now, func(key, _ string) bool { return OfForm(key) })
	if len(form) > 0 && now == nil {
		now = map[string]string{}
	}
	maps.Copy(now, form)
	if len(now) == 0 && len(was) > 0 {
		return nil
	}
	return now
}

func (f *fitting) add(path string, kind Kind, why string) {
	f.report = append(f.report, Change{path, kind, why})
}

// write returns the manifest as a document, pointing at a configuration. In the format it came in it is the source
// with what differs, byte for byte.
func (f *fitting) write(source, config []byte) ([]byte, error) {
	data, err := f.document(source, config)
	if err == nil {
		err = strict.Size("", int64(len(data)), strict.MaxDocument)
	}
	return data, kimg.Wrap("manifest", err)
}

func (f *fitting) document(source, config []byte) ([]byte, error) {
	if f.from != f.to {
		f.m.SchemaVersion, f.m.MediaType, f.m.Config.MediaType = 2, f.to.ManifestType(), f.to.ConfigType()
	}
	if d := digest.FromBytes(config); f.m.Config.Digest.Algorithm().FromBytes(config) != f.m.Config.Digest {
		if f.m.Config.Data != nil && f.from == f.to {
			f.add("config.data", Lost, "it is the old configuration")
		}
		if f.m.Config.URLs != nil {
			f.add("config.urls", Lost, "they lead to the old configuration")
		}
		f.m.Config.Digest, f.m.Config.Size, f.m.Config.Data, f.m.Config.URLs = d, int64(len(config)), nil, nil
	}
	if f.from != f.to { // other readers, who may know sha256 only
		f.m.Config.Digest = digest.FromBytes(config)
	}
	after, err := encodeManifest(f.m, f.to)
	if err != nil || f.from != f.to {
		return after, err
	}
	was, err := decodeManifest(source, f.from)
	if err != nil {
		return nil, err
	}
	before, err := encodeManifest(was, f.from)
	if err != nil || bytes.Equal(before, after) {
		return source, err
	}
	return patch(source, before, after)
}
