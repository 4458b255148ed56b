package copydata

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// What a state file says it is.
const (
	FileName = "kimg.json"            // its name in the container's directory
	Type     = "kimg container state" // its type member
	MaxSize  = 32 << 20               // the largest file that is read or written, in bytes
	schema   = 2                      // the version of the member list that this package writes
)

// file is the JSON shape of a state. Package documentation says what the members mean.
type file struct {
	Type          string            `json:"type"`
	Schema        int               `json:"schema"`
	Generation    uint64            `json:"generation"`
	ContainerID   string            `json:"container-id"`
	ContainerName string            `json:"container-name"`
	Image         string            `json:"image"`
	ImageID       string            `json:"image-id"`
	Format        convert.Format    `json:"format"`
	Manifest      []byte            `json:"manifest,omitempty"`
	Config        []byte            `json:"config,omitempty"`
	DiffIDs       []digest.Digest   `json:"diff-ids,omitempty"`
	MountPoint    string            `json:"mountpoint,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	LayerAnno     map[string]string `json:"layer-annotations,omitempty"`
	CreatedBy     string            `json:"created-by,omitempty"`
	Comment       string            `json:"history-comment,omitempty"`
	Docker        json.RawMessage   `json:"docker"`
	OCIv1         json.RawMessage   `json:"ociv1"`
	History       []json.RawMessage `json:"history,omitempty"`
}

// decodeFile reads the shape of a file: JSON, type and schema, nothing else. The errors repeat nothing of it.
func decodeFile(data []byte) (f file, unknown []strict.Member, err error) {
	if len(data) > MaxSize {
		return f, nil, damaged("%d bytes, the limit is %d", len(data), MaxSize)
	}
	if err := strict.UnmarshalExact(data, &f); err != nil {
		return f, nil, damaged("%s", err)
	}
	if err := checkHead(f.Type, f.Generation); err != nil {
		return f, nil, err
	}
	if f.Schema < 1 || f.Schema > schema {
		return f, nil, damaged("schema %d; this kimg reads 1 to %d", f.Schema, schema)
	}
	members, err := strict.Object(data)
	if err != nil {
		return f, nil, damaged("%s", err)
	}
	known := knownMembers()
	for _, m := range members {
		if !known[m.Name] {
			unknown = append(unknown, strict.Member{Name: m.Name, Key: bytes.Clone(m.Key), Value: bytes.Clone(m.Value)})
		}
	}
	return f, unknown, nil
}

func checkHead(typ string, generation uint64) error {
	if typ != Type {
		return damaged("the type is not %q", Type)
	}
	if generation == 0 {
		return damaged("there is no generation")
	}
	return nil
}

// Generation returns the generation of a state file. A [Directory] compares it, under its lock, with the generation it
// is asked to replace. Class state when data is no state file.
func Generation(data []byte) (uint64, error) {
	var head struct {
		Type       string `json:"type"`
		Generation uint64 `json:"generation"`
	}
	if len(data) > MaxSize {
		return 0, damaged("%d bytes, the limit is %d", len(data), MaxSize)
	}
	if err := strict.UnmarshalExact(data, &head); err != nil {
		return 0, damaged("%s", err)
	}
	return head.Generation, checkHead(head.Type, head.Generation)
}

// encode writes a file, with the unknown members at its end.
func (f file) encode(unknown []strict.Member) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it would make some configurations six times as long
	if err := e.Encode(f); err != nil {
		return nil, kimg.Errorf(kimg.ErrInternal, FileName, "encode: %w", err)
	}
	b.Truncate(bytes.LastIndexByte(b.Bytes(), '}'))
	for _, m := range unknown {
		b.WriteByte(',')
		b.Write(m.Key)
		b.WriteByte(':')
		b.Write(m.Value)
	}
	b.WriteString("}\n")
	return b.Bytes(), strict.Size(FileName, int64(b.Len()), MaxSize)
}

func knownMembers() map[string]bool {
	known := map[string]bool{}
	for f := range reflect.TypeFor[file]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	return known
}

func damaged(format string, args ...any) error {
	return kimg.Errorf(kimg.ErrState, "", format, args...)
}

// reason returns the reason word of an error about content, which is all of it that may be repeated: the rest can
// quote the content.
func reason(err error) string {
	var inner *kimg.Error
	for e := (*kimg.Error)(nil); errors.As(err, &e); err = e.Err {
		inner = e
	}
	if inner == nil || inner.Err == nil {
		return string(kimg.ClassOf(err))
	}
	word, _, _ := strings.Cut(inner.Err.Error(), ":")
	return word
}
