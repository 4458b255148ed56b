package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// fromSchema1 makes the configuration of a schema 1 image. layers are those of [Schema1.Layers], with diff IDs. With
// the zero Options the result is, byte for byte, the one Docker makes when it pulls the image, so it has Docker's image
// ID; but of an image of Docker before 1.8.3 it keeps what Docker drops.
func fromSchema1(doc Document, layers []Layer, o Options) (Config, Report, error) {
	s, err := parseSchema1(doc.Manifest)
	if err == nil && len(doc.Config) > 0 {
		err = invalid("ambiguous: a schema 1 image with a configuration beside its manifest")
	}
	if err == nil && len(layers) != len(s.Layers) {
		err = invalid("count: %d layers are given, the manifest has %d", len(layers), len(s.Layers))
	}
	for i, l := range layers {
		if err == nil {
			err = kimg.Wrap(fmt.Sprintf("layers[%d].DiffID", i), strict.Digest(string(l.DiffID)))
		}
	}
	if err != nil {
		return Config{}, nil, kimg.Wrap("manifest", err)
	}
	c, report, err := s.config(layers, o)
	if err != nil {
		return Config{}, nil, kimg.Wrap("manifest: history[0]", err)
	}
	return c, report, nil
}

// parseSchema1Config is [Parse] for schema 1.
func parseSchema1Config(doc Document, diffIDs []digest.Digest) (Config, error) {
	layers := make([]Layer, len(diffIDs))
	for i, id := range diffIDs {
		layers[i].DiffID = id
	}
	c, _, err := fromSchema1(doc, layers, Options{})
	return c, err
}

// config makes the configuration out of the newest entry and the history out of all.
func (s schema1) config(layers []Layer, o Options) (Config, Report, error) {
	report, err := s.unknown()
	if err != nil {
		return Config{}, nil, err
	}
	history, diffIDs, said := s.history(layers, o)
	report = append(report, said...)
	newest := s.entries[len(s.entries)-1]
	raw, said, err := reencoded(newest, o.ExactDockerID)
	if err != nil {
		return Config{}, nil, err
	}
	report = append(report, said...)
	members, err := memberMap(raw)
	if err != nil {
		return Config{}, nil, err
	}
	for name := range fieldsOf(reflect.TypeFor[v1Only]()) {
		delete(members, name)
	}
	for _, made := range []struct {
		name  string
		value any
	}{{"rootfs", docker.RootFS{Type: "layers", DiffIDs: diffIDs}}, {"history", history}} {
		if _, had := members[made.name]; had {
			report = append(report, Change{made.name, Changed, "schema 1 does not define it; it is made from the entries"})
		}
		if members[made.name], err = json.Marshal(made.value); err != nil {
			return Config{}, nil, invalid("timestamp: %w", err) // of all members only times can fail to encode
		}
	}
	data, err := json.Marshal(members) // sorted, and with <, > and & escaped: as Docker does
	if err != nil {
		return Config{}, nil, err
	}
	c, err := parseConfig(DockerV2S1, data)
	c.architecture = s.Architecture
	return c, report, err
}

// unknown reports the members of the manifest that schema 1 does not define.
func (s schema1) unknown() (Report, error) {
	p := pruner{why: "schema 1 does not define it, so nobody knows what it says"}
	_, err := p.value(s.payload, reflect.TypeFor[docker.V1Manifest](), "")
	return slices.DeleteFunc(p.report, func(c Change) bool { return c.Path == "mediaType" }), err
}

// v2History is a history entry as Docker writes it: in this order, and always with a date.
type v2History struct {
	Created    time.Time `json:"created"`
	Author     string    `json:"author,omitempty"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}

// history makes the history and lists the diff IDs of the layers, base first.
func (s schema1) history(layers []Layer, o Options) (history []v2History, diffIDs []digest.Digest, report Report) {
	if len(s.repeats) > 0 {
		report = append(report, s.repeated())
	}
	if s.Signed {
		report = append(report, unsigned())
	}
	diffIDs = []digest.Digest{}
	full := map[digest.Digest]bool{}
	for i, e := range s.entries {
		h := v2History{Author: e.image.Author, Comment: e.image.Comment, EmptyLayer: e.image.Throwaway}
		if e.image.Created != nil {
			h.Created = *e.image.Created
		} else {
			report = append(report, Change{fmt.Sprintf("history[%d].created", i), Added, "Docker writes year 1 where the date is unknown"})
		}
		if e.image.ContainerConfig != nil {
			h.CreatedBy = strings.Join(e.image.ContainerConfig.Cmd, " ")
		}
		if !h.EmptyLayer {
			l := layers[0]
			layers = layers[1:]
			h.EmptyLayer = l.Empty && o.EmptyLayers == EmptyContent
			full[e.blob] = !l.Empty
			if !h.EmptyLayer {
				diffIDs = append(diffIDs, l.DiffID)
			} else {
				report = append(report, Change{fmt.Sprintf("history[%d].empty_layer", i), Added, "the layer has no entries and is left out"})
			}
		}
		history = append(history, h)
	}
	return history, diffIDs, append(report, s.leftOut(full)...)
}

// leftOut reports what older entries say that schema 2 has no place for, and flags that look wrong. What makes the
// chain of entries (ids, parents, sizes) is not reported: it says nothing about the image.
func (s schema1) leftOut(full map[digest.Digest]bool) (report Report) {
	_, usual := EmptyLayer()
	lost := map[string]Change{}
	for i, e := range s.entries {
		if e.image.Throwaway && e.blob != usual.Digest {
			why := "it is flagged as empty, and its blob is not the usual empty one; the flag decides, the blob was not read"
			if full[e.blob] {
				why = "it is flagged as empty, and its blob is a layer with files elsewhere in the image; the flag decides"
			}
			report = append(report, Change{fmt.Sprintf("fsLayers[%d]", e.index), Warning, why})
		}
		if i == len(s.entries)-1 {
			break
		}
		members, _ := memberMap(e.raw) // it was decoded before
		inner, _ := memberMap(members["container_config"])
		if c := e.image.ContainerConfig; c != nil && len(c.Cmd) > 1 {
			lost["container_config.Cmd"] = Change{Kind: Changed, Why: "the words of the command are joined with spaces"}
		}
		for name, value := range inner {
			if !strings.EqualFold(name, "Cmd") && !blank(value) {
				lost["container_config"] = Change{Kind: Lost, Why: "of older entries schema 2 keeps only the command"}
			}
		}
		kept := fieldsOf(reflect.TypeFor[v1Only]())
		for name, value := range members {
			switch _, chain := kept[name]; {
			case chain, blank(value):
			case slices.Contains([]string{"created", "author", "comment", "container_config"}, strings.ToLower(name)):
			default:
				lost[name] = Change{Kind: Lost, Why: "schema 2 keeps it for the newest entry only"}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(lost)) {
		c := lost[name]
		c.Path = "history[].v1Compatibility." + name
		report = append(report, c)
	}
	return report
}

// blank reports whether a value says nothing: null, zero, empty, or an object of such.
func blank(value json.RawMessage) bool {
	switch string(value) {
	case "null", "false", "0", `""`:
		return true
	}
	if isA('[', value) {
		list, err := strict.List(value)
		return err == nil && len(list) == 0
	}
	if !isA('{', value) {
		return false
	}
	members, err := strict.Object(value)
	return err == nil && !slices.ContainsFunc(members, func(m strict.Member) bool { return !blank(m.Value) })
}
