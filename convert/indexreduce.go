package convert

import (
	"bytes"
	"encoding/json"

	"github.com/kimg/kimg"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReduceIndex returns an index with those entries only that keep accepts. All else stays as it is, byte for byte:
// annotations, subject, type, members nobody knows. With every entry it is the same index.
func ReduceIndex(data []byte, keep func(ispec.Descriptor) bool) ([]byte, error) {
	v, err := ParseIndex(data)
	if err != nil {
		return nil, err
	}
	out, err := reduceIndex(data, v, keep)
	return out, kimg.Wrap("index", err)
}

func reduceIndex(data []byte, v IndexView, keep func(ispec.Descriptor) bool) ([]byte, error) {
	var entries []json.RawMessage
	list, at, err := member(data, "manifests")
	if err == nil {
		err = json.Unmarshal(list, &entries)
	}
	if err != nil {
		return nil, err
	}
	kept := entries[:0:0]
	for i, d := range v.Manifests {
		if keep(d) {
			kept = append(kept, entries[i])
		}
	}
	if len(kept) == len(entries) {
		return data, nil
	}
	reduced := []byte{'['}
	for i, e := range kept {
		if i > 0 {
			reduced = append(reduced, ',')
		}
		reduced = append(reduced, e...)
	}
	return bytes.Join([][]byte{data[:at], append(reduced, ']'), data[at+len(list):]}, nil), nil
}

// member finds the value of one member of an object, and where it lies in it.
func member(data []byte, name string) (value json.RawMessage, at int, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	_, err = d.Token() // the brace
	for err == nil && d.More() {
		var key json.Token
		if key, err = d.Token(); err != nil {
			break
		}
		value = nil
		if err = d.Decode(&value); err == nil && key == name {
			return value, int(d.InputOffset()) - len(value), nil
		}
	}
	if err == nil {
		err = invalid("json-type: there is no member %s", name)
	}
	return nil, 0, err
}
