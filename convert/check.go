package convert

import (
	"encoding/json"
	"fmt"
	"reflect"
	"unicode/utf8"

	// The digests of manifests may be of these algorithms; go-digest finds them only when they are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// MaxHistory is how many history entries an image may have.
const MaxHistory = 1000

// checkImage checks what one configuration must fulfil by itself.
func checkImage(img docker.Image) error {
	if img.RootFS.Type != "layers" {
		return invalid("rootfs-type: rootfs.type is %s, not \"layers\"", kimg.Quote(img.RootFS.Type))
	}
	if n := len(img.RootFS.DiffIDs); n > MaxLayers {
		return limit("too-big: %d layers, the limit is %d", n, MaxLayers)
	}
	if n := len(img.History); n > MaxHistory {
		return limit("too-big: %d history entries, the limit is %d", n, MaxHistory)
	}
	for i, id := range img.RootFS.DiffIDs {
		if err := strict.Digest(string(id)); err != nil {
			return kimg.Wrap(fmt.Sprintf("rootfs.diff_ids[%d]", i), err)
		}
	}
	if full := fullEntries(img.History); len(img.History) > 0 && full != len(img.RootFS.DiffIDs) {
		return invalid("count: %d history entries with a layer, but %d diff_ids", full, len(img.RootFS.DiffIDs))
	}
	return nil
}

// fullEntries counts the history entries that have a layer.
func fullEntries(history []docker.History) int {
	n := 0
	for _, h := range history {
		if !h.EmptyLayer {
			n++
		}
	}
	return n
}

// checkLayers checks a configuration against the number of layers in its manifest (-1: no manifest) and against the
// layers as they really are (nil: not known).
func checkLayers(img docker.Image, layers int, diffIDs []digest.Digest) error {
	said := img.RootFS.DiffIDs
	if layers >= 0 && layers != len(said) {
		return invalid("count: %d layers in the manifest, but %d diff_ids", layers, len(said))
	}
	if diffIDs == nil {
		return nil
	}
	if len(diffIDs) != len(said) {
		return invalid("count: %d layers, but %d diff_ids", len(diffIDs), len(said))
	}
	for i, id := range diffIDs {
		if id != said[i] {
			return kimg.Errorf(kimg.ErrIntegrity, "", "diff-id: rootfs.diff_ids[%d] is not the digest of the layer", i)
		}
	}
	return nil
}

// sized is a descriptor that may lack its size.
type sized struct {
	Size *int64 `json:"size"`
}

// haveSizes refuses descriptors without a size, in a manifest or an index that was decoded before. Go reads zero there,
// other readers do not ask.
func haveSizes(data []byte, f Format) error {
	var all struct {
		Config    *sized          `json:"config"`
		Layers    []sized         `json:"layers"`
		Manifests []sized         `json:"manifests"`
		Subject   json.RawMessage `json:"subject"` // unknown to Docker, so it may be anything there
	}
	err := json.Unmarshal(data, &all)
	var subject *sized
	if err == nil && f == OCI && all.Subject != nil {
		err = json.Unmarshal(all.Subject, &subject)
	}
	if err != nil {
		return invalid("json-type: a descriptor is not an object")
	}
	for i, d := range append(all.Layers, all.Manifests...) {
		if d.Size == nil {
			return invalid("size: entry %d has none", i)
		}
	}
	for _, d := range []*sized{all.Config, subject} {
		if d != nil && d.Size == nil {
			return invalid("size: config or subject has none")
		}
	}
	return nil
}

// validText reports whether all text inside a value is valid UTF-8. JSON cannot say anything else, and Go would write
// replacement characters without a word.
func validText(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer:
		return v.IsNil() || validText(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && !validText(v.Field(i)) {
				return false
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if !validText(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			if !validText(key) || !validText(value) {
				return false
			}
		}
	}
	return true
}
