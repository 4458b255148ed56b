// Package strict reads JSON that somebody else wrote, so that it can have one meaning only, and checks the names,
// ids and digests that come out of it.
//
// # One meaning
//
// A document is refused when two careful readers could understand it differently:
//
//   - it is not exactly one JSON value in valid UTF-8: no byte order mark, nothing after the end, no half of a
//     surrogate pair ("json");
//   - one object has the same key twice ("duplicate-key");
//   - one object has two keys that differ only in case, at a place where Go's decoder would take the one for the
//     other: that is, where the value is decoded into a struct. In a map (labels, ports, annotations, the arguments
//     of a build) and in members nobody decodes, keys that differ in case are different keys and are left alone
//     ("duplicate-key");
//   - a known member has another JSON type than it should, a list of objects has a null in it, or the document is
//     null where an object is expected ("json-type", and "timestamp" for a date that is not RFC 3339).
//
// [UnmarshalExact] also refuses a single key that resembles a known member without being it ("Layers" for "layers"):
// Go reads such a key, other languages do not.
//
// # Bounded
//
// Nesting deeper than [MaxDepth] is refused before anything recurses ("depth"). The size of the document is the
// caller's to bound, with [Size] ("too-big"); memory and time are linear in it.
//
// Errors are of class invalid, or limit for the bounds. Their text begins with the reason word in quotes above and
// holds no value of the input, only names of known members and positions.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kimg/kimg"
)

// Limits of JSON documents.
const (
	MaxDepth    = 128     // nesting of objects and lists
	MaxDocument = 4 << 20 // bytes of a manifest, an index or an image configuration
)

// Size refuses a document that is larger than max bytes, with class limit and the reason "too-big". The text names
// what, the size and the limit.
func Size(what string, size, max int64) error {
	if size <= max {
		return nil
	}
	return kimg.Errorf(kimg.ErrLimit, what, "too-big: %d bytes, the limit is %d", size, max)
}

// Unmarshal checks one JSON value against the type v points to, as described in the package documentation, and decodes
// it into v. What v points to should be a zero value. After an error v may be partly filled.
func Unmarshal(data []byte, v any) error { return unmarshal(data, v, nil) }

// UnmarshalExact is [Unmarshal] for documents whose known members must be spelled exactly: a key that equals a known
// member only when case is ignored is refused too, even when it stands alone.
func UnmarshalExact(data []byte, v any) error {
	return unmarshal(data, v, func(start, _ int, name, _ string) error {
		return invalid("duplicate-key: the key at byte %d resembles %q without being it", start, name)
	})
}

func unmarshal(data []byte, v any, lone func(start, end int, name, path string) error) error {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return kimg.Errorf(kimg.ErrInternal, "", "strict: decoding into something that is not a pointer")
	}
	if err := check(data, t.Elem(), lone); err != nil {
		return err
	}
	return decodeError(json.Unmarshal(data, v), t.Elem())
}

// Respell returns a document in which every key that resembles a known member of the type v points to, without being
// it, is spelled as that member, and the paths of those members. All other bytes stay; a document without such keys is
// returned itself. Errors are those of [Unmarshal].
func Respell(data []byte, v any) (respelled []byte, paths []string, err error) {
	last := 0
	err = check(data, reflect.TypeOf(v).Elem(), func(start, end int, name, path string) error {
		key, err := json.Marshal(name)
		respelled = append(append(respelled, data[last:start]...), key...)
		last, paths = end, append(paths, path)
		return err
	})
	if err != nil || len(paths) == 0 {
		return data, nil, err
	}
	return append(respelled, data[last:]...), paths, nil
}

// check runs the checks that need no decoding, cheapest and most protective first.
func check(data []byte, t reflect.Type, lone func(start, end int, name, path string) error) error {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return invalid("json: begins with a byte order mark")
	}
	if !utf8.Valid(data) {
		return invalid("json: not valid UTF-8")
	}
	if depth(data) > MaxDepth {
		return kimg.Errorf(kimg.ErrLimit, "", "depth: nested deeper than %d", MaxDepth)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return invalid("json: empty document")
	}
	if !json.Valid(data) {
		return syntaxError(data)
	}
	w := walker{data: data, lone: lone, fields: map[reflect.Type]map[string]field{}}
	w.space()
	if t != nil && data[w.pos] != '{' && underlying(t) != nil && underlying(t).Kind() == reflect.Struct {
		return invalid("json-type: the document is not an object")
	}
	return w.value(t)
}

// depth returns how deep the brackets of a document nest. It looks at nothing else, so it is safe on any bytes.
func depth(data []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// syntaxError says where a document that json.Valid refused goes wrong, without repeating any of it.
func syntaxError(data []byte) error {
	var syntax *json.SyntaxError
	var raw json.RawMessage
	if !errors.As(json.Unmarshal(data, &raw), &syntax) {
		return invalid("json: not valid")
	}
	switch {
	case strings.Contains(syntax.Error(), "unexpected end"):
		return invalid("json: cut short after %d bytes", len(data))
	case strings.Contains(syntax.Error(), "after top-level value"):
		return invalid("json: more data after the document, at byte %d", syntax.Offset)
	}
	return invalid("json: syntax error at byte %d", syntax.Offset)
}

// decodeError turns an error of the typed decode into a reason that repeats no value of the input.
func decodeError(err error, t reflect.Type) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		got, _, _ := strings.Cut(e.Value, " ") // "number 12…" would repeat the number
		if e.Field == "" && e.Type == t {
			return invalid("json-type: the document is a %s where a %s is expected", got, kindName(e.Type))
		}
		if e.Field == "" { // inside a type with its own decoding: the path is not known
			return invalid("json-type: a member is a %s where a %s is expected", got, kindName(e.Type))
		}
		return invalid("json-type: %s is a %s where a %s is expected", e.Field, got, kindName(e.Type))
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok || strings.Contains(err.Error(), "Time.UnmarshalJSON") {
		return invalid("timestamp: not an RFC 3339 date and time")
	}
	if e, ok := errors.AsType[*kimg.Error](err); ok {
		return e
	}
	return invalid("json-type: a member does not have the expected type")
}

// kindName names the JSON type that a Go type is decoded from.
func kindName(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return "value"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64 string"
		}
		return "list"
	case reflect.Float32, reflect.Float64:
		return "number"
	}
	return "fitting integer"
}

func invalid(format string, args ...any) error {
	return kimg.Errorf(kimg.ErrInvalid, "", format, args...)
}
