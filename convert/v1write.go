package convert

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// toSchema1 writes an unsigned schema 1 manifest of a configuration and its layers as they are at the destination. What
// it cannot say is in the report. Entries without a layer name the blob of [EmptyLayer].
func toSchema1(c Config, layers []Layer, o Options) (manifest []byte, report Report, err error) {
	manifest, report, err = writeSchema1(c, layers, o)
	return manifest, report, kimg.Wrap("manifest", err)
}

func writeSchema1(c Config, layers []Layer, o Options) ([]byte, Report, error) {
	raw, report := c.spelled()
	img := decode(raw)
	if len(layers) != len(img.RootFS.DiffIDs) {
		return nil, nil, invalid("count: %d layers, but %d diff_ids", len(layers), len(img.RootFS.DiffIDs))
	}
	for i, l := range layers {
		if err := l.schema1(); err != nil {
			return nil, nil, kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
		}
	}
	w := v1Writer{raw: raw, image: img, report: report}
	w.readSteps()
	top := w.top()
	m := docker.V1Manifest{SchemaVersion: 1, Name: o.Name, Tag: o.Tag, Architecture: cmp.Or(img.Architecture, c.architecture)}
	for _, e := range w.entries(layers, top, c.raw) {
		m.FSLayers = append(m.FSLayers, docker.V1FSLayer{BlobSum: e.blob})
		m.History = append(m.History, docker.V1History{V1Compatibility: string(e.raw)})
	}
	if w.err != nil {
		return nil, nil, w.err
	}
	slices.Reverse(m.FSLayers)
	slices.Reverse(m.History)
	data, err := marshalV1(m)
	if err != nil {
		return nil, nil, err
	}
	return data, w.report, nil
}

// marshalV1 writes a manifest and reads it again: it must pass all that a manifest of somebody else must pass.
func marshalV1(m docker.V1Manifest) ([]byte, error) {
	if !utf8.ValidString(m.Name + m.Tag) {
		return nil, invalid("json: a name or tag that is not valid UTF-8")
	}
	data, err := strict.Marshal(m)
	if err == nil {
		_, err = parseSchema1(data)
	}
	return data, err
}

// schema1 refuses a layer that a schema 1 manifest cannot name.
func (l Layer) schema1() error {
	kind, err := kindOf(l.MediaType)
	switch {
	case err != nil:
		return err
	case kind.foreign:
		return kimg.Errorf(kimg.ErrUnsupported, "", "media-type: a schema 1 manifest cannot have a foreign layer")
	case kind.compression == "zstd":
		return kimg.Errorf(kimg.ErrUnsupported, "", "media-type: a schema 1 manifest cannot have a zstd layer")
	}
	return strict.Digest(string(l.Digest))
}

// v1Writer makes the entries of a schema 1 manifest. After an error its methods do nothing useful.
type v1Writer struct {
	raw    json.RawMessage // the configuration
	image  docker.Image    // what that says
	steps  []v1Step        // base first, at least one
	report Report
	err    error
}

// v1Step is a history entry whose date has kept its text.
type v1Step struct {
	Created    json.RawMessage `json:"created"`
	CreatedBy  string          `json:"created_by"`
	Author     string          `json:"author"`
	Comment    string          `json:"comment"`
	EmptyLayer bool            `json:"empty_layer"`
}

// readSteps reads the history. Where there is none, each layer is a step that says nothing; an image without layers
// needs an empty step, because schema 1 needs one.
func (w *v1Writer) readSteps() {
	members, err := memberMap(w.raw)
	if err == nil {
		err = w.unknownSteps(members)
	}
	if err == nil && len(w.image.History) > 0 {
		err = json.Unmarshal(members["history"], &w.steps)
	}
	if w.err = err; err != nil || len(w.steps) > 0 {
		return
	}
	w.steps = make([]v1Step, max(1, len(w.image.RootFS.DiffIDs)))
	w.steps[0].EmptyLayer = len(w.image.RootFS.DiffIDs) == 0
	w.report = append(w.report, Change{"history", Added, "schema 1 needs an entry for each layer, and one at least"})
}

// unknownSteps reports the members of history and rootfs that nobody knows.
func (w *v1Writer) unknownSteps(members map[string]json.RawMessage) error {
	p := pruner{why: noPlace(DockerV2S1)}
	_, err := p.value(members["rootfs"], reflect.TypeFor[docker.RootFS](), "rootfs")
	if err == nil {
		_, err = p.value(members["history"], reflect.TypeFor[[]docker.History](), "history")
	}
	w.report = append(w.report, p.report...)
	return err
}

// v1Older is an entry below the newest one, as Docker writes it.
type v1Older struct {
	ID              string          `json:"id"`
	Parent          string          `json:"parent,omitempty"`
	Comment         string          `json:"comment,omitempty"`
	Created         json.RawMessage `json:"created,omitempty"`
	ContainerConfig *v1Command      `json:"container_config,omitempty"`
	Author          string          `json:"author,omitempty"`
	Throwaway       bool            `json:"throwaway,omitempty"`
}

type v1Command struct {
	Cmd []string `json:"Cmd"`
}

// entries makes the entries, base first. top holds what the newest one says beside its place in the chain, and config
// is what its id is made of.
func (w *v1Writer) entries(layers []Layer, top map[string]json.RawMessage, config []byte) (entries []v1Entry) {
	if len(w.steps) > maxV1Entries {
		w.err = limit("too-big: %d history entries, the limit for schema 1 is %d", len(w.steps), maxV1Entries)
		return nil
	}
	_, empty := EmptyLayer()
	parent := ""
	for i, step := range w.steps {
		if w.err != nil {
			return nil
		}
		l := empty
		if !step.EmptyLayer {
			l, layers = layers[0], layers[1:]
		}
		e := v1Entry{blob: l.Digest}
		older := v1Older{Parent: parent, Comment: step.Comment, Created: step.Created, Author: step.Author, Throwaway: step.EmptyLayer}
		if string(older.Created) == "null" {
			older.Created = nil
		}
		if step.CreatedBy != "" {
			older.ContainerConfig = &v1Command{[]string{step.CreatedBy}}
		}
		if i < len(w.steps)-1 {
			older.ID = v1ID(l.Digest, parent)
			e.raw, w.err = strict.Marshal(older)
		} else {
			older.ID = v1ID(l.Digest, parent, string(config))
			e.raw, w.err = newest(top, older)
		}
		parent = older.ID
		entries = append(entries, e)
	}
	return entries
}

// v1ID makes the id of an entry, as Docker does: it depends on the blob and on all that lies below.
func v1ID(blob digest.Digest, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{blob.Encoded()}, parts...), " ")))
	return hex.EncodeToString(sum[:])
}
