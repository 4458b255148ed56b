package strict

import (
	"bytes"
	"encoding/json"
)

// Member is one member of a JSON object, as it stands in the source.
type Member struct {
	Name  string          // the key's meaning
	Key   json.RawMessage // the key's text, quotes included
	Value json.RawMessage // the value's text, without space around it
}

// Object splits a JSON object into its members, in the order of the source; keys and values are slices of data. The
// object must have passed [Unmarshal] or [Valid] before; anything else is class invalid.
func Object(data []byte) ([]Member, error) {
	var members []Member
	err := split(data, '{', '}', func(w *walker) error {
		at := w.pos
		name, err := w.text()
		if err != nil {
			return err
		}
		key := data[at:w.pos:w.pos]
		w.space()
		w.pos++ // the colon
		value, err := w.raw()
		members = append(members, Member{name, key, value})
		return err
	})
	return members, err
}

// List splits a JSON list into its elements, which are slices of data. The list must have passed [Unmarshal] or
// [Valid] before; anything else is class invalid.
func List(data []byte) ([]json.RawMessage, error) {
	elements := []json.RawMessage{}
	err := split(data, '[', ']', func(w *walker) error {
		value, err := w.raw()
		elements = append(elements, value)
		return err
	})
	return elements, err
}

// Marshal is json.Marshal without the escaping of <, > and &: it keeps texts readable, and makes no document six times
// as long.
func Marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func split(data []byte, open, shut byte, next func(*walker) error) error {
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != open || !json.Valid(data) {
		return invalid("json-type: not the expected object or list")
	}
	w := &walker{data: data}
	w.space()
	for w.pos++; !w.closes(shut); {
		if err := next(w); err != nil {
			return err
		}
	}
	return nil
}

// raw moves over a value and returns its text.
func (w *walker) raw() (json.RawMessage, error) {
	w.space()
	at := w.pos
	err := w.value(nil)
	return w.data[at:w.pos:w.pos], err
}
