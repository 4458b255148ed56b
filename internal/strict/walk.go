package strict

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// walker goes once over a document that is known to be valid JSON, with the Go type each value will be decoded into
// beside it, and looks at keys.
type walker struct {
	data   []byte
	pos    int
	lone   func(start, end int, name, path string) error // called for a key that resembles a member without being it
	fields map[reflect.Type]map[string]field             // by folded name
	path   []step                                        // where pos is
}

// step is one part of a path: the name of a member, or the number of an element.
type step struct {
	name  string
	index int
}

// at returns the path of the member name of the object at pos: "history[2].created".
func (w *walker) at(name string) string {
	var b strings.Builder
	for _, s := range append(w.path[:len(w.path):len(w.path)], step{name: name}) {
		switch {
		case s.name == "":
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case b.Len() > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

// field is a member that a struct knows.
type field struct {
	name string
	typ  reflect.Type
}

// value checks the value at pos and moves behind it. A nil type means that nobody decodes the value.
func (w *walker) value(t reflect.Type) error {
	w.space()
	t = underlying(t)
	switch w.data[w.pos] {
	case '{':
		return w.object(t)
	case '[':
		return w.list(t)
	case '"':
		_, err := w.text()
		return err
	}
	for ; w.pos < len(w.data); w.pos++ {
		switch w.data[w.pos] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return nil
		}
	}
	return nil
}

func (w *walker) list(t reflect.Type) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	ofObjects := elem != nil && underlying(elem) != nil && underlying(elem).Kind() == reflect.Struct
	w.path = append(w.path, step{})
	for w.pos++; !w.closes(']'); w.path[len(w.path)-1].index++ {
		if ofObjects && w.data[w.pos] == 'n' {
			return invalid("json-type: null in a list of objects, at byte %d", w.pos)
		}
		if err := w.value(elem); err != nil {
			return err
		}
	}
	w.path = w.path[:len(w.path)-1]
	return nil
}

func (w *walker) object(t reflect.Type) error {
	var known map[string]field
	var elem reflect.Type
	folds := false
	if t != nil && t.Kind() == reflect.Struct {
		known, folds = w.fieldsOf(t), true
	} else if t != nil && t.Kind() == reflect.Map {
		elem = t.Elem()
	}
	var seen map[string]struct{} // made with the first key: many objects in maps are empty
	for w.pos++; !w.closes('}'); {
		at := w.pos
		key, err := w.text()
		if err != nil {
			return err
		}
		id := key
		if folds {
			id = fold(key)
		}
		if _, twice := seen[id]; twice {
			return invalid("duplicate-key: two keys of one object are the same%s, the second at byte %d",
				map[bool]string{true: " or differ only in case"}[folds], at)
		}
		if seen == nil {
			seen = map[string]struct{}{}
		}
		seen[id] = struct{}{}
		member := elem
		if f, ok := known[id]; ok {
			if w.lone != nil && f.name != key {
				if err := w.lone(at, w.pos, f.name, w.at(f.name)); err != nil {
					return err
				}
			}
			member, key = f.typ, f.name
		}
		w.space()
		w.pos++ // the colon
		w.path = append(w.path, step{name: key})
		if err := w.value(member); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	return nil
}

// closes reports whether the bracket that ends the object or list comes next, moving behind it, and else moves to the
// next key or element.
func (w *walker) closes(bracket byte) bool {
	w.space()
	if w.data[w.pos] == ',' {
		w.pos++
		w.space()
	}
	if w.data[w.pos] == bracket {
		w.pos++
		return true
	}
	return false
}

func (w *walker) space() {
	for ; w.pos < len(w.data); w.pos++ {
		if c := w.data[w.pos]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return
		}
	}
}

// text moves over the string at pos and returns what it says. Half a surrogate pair is refused: Go replaces it, other
// readers keep it, so two keys or values could be equal for one reader only.
func (w *walker) text() (string, error) {
	start := w.pos
	escaped := false
	for w.pos++; w.data[w.pos] != '"'; w.pos++ {
		if w.data[w.pos] != '\\' {
			continue
		}
		escaped = true
		w.pos++
		if w.data[w.pos] != 'u' {
			continue
		}
		r := w.hex(w.pos + 1)
		w.pos += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if w.pos+6 >= len(w.data) || w.data[w.pos+1] != '\\' || w.data[w.pos+2] != 'u' ||
			utf16.DecodeRune(r, w.hex(w.pos+3)) == unicode.ReplacementChar {
			return "", invalid("json: half a surrogate pair at byte %d", w.pos-5)
		}
		w.pos += 6
	}
	w.pos++
	if !escaped {
		return string(w.data[start+1 : w.pos-1]), nil
	}
	var s string
	if err := json.Unmarshal(w.data[start:w.pos], &s); err != nil {
		return "", invalid("json: bad string at byte %d", start)
	}
	return s, nil
}

// hex reads four hexadecimal digits.
func (w *walker) hex(at int) rune {
	var r rune
	for _, c := range w.data[at : at+4] {
		switch {
		case c >= 'a':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A':
			r = r<<4 | rune(c-'A'+10)
		default:
			r = r<<4 | rune(c-'0')
		}
	}
	return r
}

// fieldsOf lists the members a struct is decoded from, those of embedded structs included.
func (w *walker) fieldsOf(t reflect.Type) map[string]field {
	if known, ok := w.fields[t]; ok {
		return known
	}
	known := map[string]field{}
	w.fields[t] = known
	var embedded []reflect.Type
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case f.Tag.Get("json") == "-":
			continue
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			embedded = append(embedded, inner)
			continue
		case !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		known[fold(name)] = field{name, f.Type}
	}
	for _, e := range embedded {
		for id, f := range w.fieldsOf(e) {
			if _, shadowed := known[id]; !shadowed {
				known[id] = f
			}
		}
	}
	return known
}

// underlying strips pointers and returns nil for types whose decoding is not the JSON package's own: what happens
// inside them is theirs.
func underlying(t reflect.Type) reflect.Type {
	for t != nil {
		if t.Implements(reflect.TypeFor[json.Unmarshaler]()) || t.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
			return nil
		}
		if t.Kind() != reflect.Pointer {
			p := reflect.PointerTo(t)
			if p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
				return nil
			}
			return t
		}
		t = t.Elem()
	}
	return nil
}

// fold returns the form of a key that Go's JSON decoder compares when it ignores case: each rune is replaced by the
// smallest one that Unicode's simple folding calls the same. So "K" (Kelvin sign), "k" and "K" are one.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}
