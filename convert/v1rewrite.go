package convert

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// rewriteSchema1 gives a schema 1 manifest the name and tag of the options (empty: the ones it has) and the layers that
// are at the destination (nil: the ones it has). Everything else keeps its bytes. Where nothing changes the manifest is
// returned itself; where something does, its signatures are dropped, and the entries that Docker ignores.
//
// At a destination there are no other blobs than the layers and the usual empty one, so entries that name others change.
func rewriteSchema1(manifest []byte, layers []Layer, o Options) ([]byte, Report, error) {
	s, err := parseSchema1(manifest)
	if err != nil {
		return nil, nil, err
	}
	if layers != nil && len(layers) != len(s.Layers) {
		return nil, nil, invalid("count: %d layers are given, the manifest has %d", len(layers), len(s.Layers))
	}
	raw := json.RawMessage(s.payload)
	var report Report
	for _, t := range []struct{ name, is, to string }{{"name", s.Name, o.Name}, {"tag", s.Tag, o.Tag}} {
		if t.to == "" || t.to == t.is {
			continue
		}
		if !utf8.ValidString(t.to) {
			return nil, nil, invalid("json: a name or tag that is not valid UTF-8")
		}
		value, err := strict.Marshal(t.to)
		if err == nil {
			raw, err = setMember(raw, t.name, value)
		}
		if err != nil {
			return nil, nil, err
		}
		report = append(report, Change{t.name, Changed, "the image has another name at the destination"})
	}
	moved, err := s.move(layers)
	if err != nil {
		return nil, nil, err
	}
	stray := layers != nil && slices.ContainsFunc(s.repeats, func(d digest.Digest) bool { return !slices.Contains(s.Layers, d) })
	if report = append(report, moved...); len(report) == 0 && !stray {
		return manifest, nil, nil
	}
	if raw, err = s.lists(raw); err != nil {
		return nil, nil, err
	}
	if len(s.repeats) > 0 {
		report = append(report, s.repeated())
	}
	if s.Signed {
		report = append(report, unsigned())
	}
	if _, err = parseSchema1(raw); err != nil {
		return nil, nil, err
	}
	return raw, report, nil
}

// move points the entries at the layers of the destination.
func (s schema1) move(layers []Layer) (report Report, err error) {
	if layers == nil {
		return nil, nil
	}
	_, empty := EmptyLayer()
	for i := range s.entries {
		e := &s.entries[i]
		l, why := empty, "the entry is flagged as empty, so it names the usual empty layer"
		if !e.image.Throwaway {
			l, why = layers[0], "the layer was compressed anew; what it unpacks to is the same"
			layers = layers[1:]
		}
		if err := l.schema1(); err != nil {
			return nil, err
		}
		if l.Digest != e.blob {
			e.blob = l.Digest
			report = append(report, Change{fmt.Sprintf("fsLayers[%d].blobSum", e.index), Changed, why})
		}
	}
	slices.Reverse(report)
	return report, nil
}

// lists writes the entries back into a manifest.
func (s schema1) lists(manifest json.RawMessage) (json.RawMessage, error) {
	members, err := memberMap(manifest)
	if err != nil {
		return nil, err
	}
	blobs, err := strict.List(members["fsLayers"])
	if err != nil {
		return nil, err
	}
	texts, err := strict.List(members["history"])
	if err != nil {
		return nil, err
	}
	var fsLayers, history []json.RawMessage
	for _, e := range slices.Backward(s.entries) {
		sum, err := strict.Marshal(e.blob)
		if err != nil {
			return nil, err
		}
		blob, err := setMember(blobs[e.index], "blobSum", sum)
		if err != nil {
			return nil, err
		}
		fsLayers, history = append(fsLayers, blob), append(history, texts[e.index])
	}
	if manifest, err = setMember(manifest, "fsLayers", joinList(fsLayers)); err != nil {
		return nil, err
	}
	return setMember(manifest, "history", joinList(history))
}

// repeated is the change that leaving out repeated entries is.
func (s schema1) repeated() Change {
	return Change{"history", Changed, fmt.Sprintf("entries left out, as Docker does, because the next older one has their id: %d", len(s.repeats))}
}

// unsigned is the change that dropping signatures is.
func unsigned() Change {
	return Change{"signatures", Warning, "they are of the manifest as it was, and are left out"}
}
