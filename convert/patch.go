package convert

import (
	"bytes"
	"encoding/json"

	"github.com/kimg/kimg/internal/strict"
)

// patch writes the difference between two encodings of the same Go type onto a third document, which the first one was
// decoded from. What does not differ keeps its bytes there: unknown members, spacing, the text of numbers and dates.
// Objects keep the order of their members; new ones go to the end.
func patch(base, before, after json.RawMessage) (json.RawMessage, error) {
	switch {
	case bytes.Equal(before, after):
		return base, nil
	case isA('{', base, before, after):
		return patchObject(base, before, after)
	case isA('[', base, before, after):
		return patchList(base, before, after)
	}
	return after, nil
}

// isA reports whether all values begin with a bracket.
func isA(bracket byte, values ...json.RawMessage) bool {
	for _, v := range values {
		if v = bytes.TrimLeft(v, " \t\r\n"); len(v) == 0 || v[0] != bracket {
			return false
		}
	}
	return true
}

func patchObject(base, before, after json.RawMessage) (json.RawMessage, error) {
	members, err := strict.Object(base)
	if err != nil {
		return nil, err
	}
	old, err := memberMap(before)
	if err != nil {
		return nil, err
	}
	wanted, err := strict.Object(after)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for i, m := range members {
		at[m.Name] = i
	}
	keep := map[string]bool{}
	for _, w := range wanted {
		keep[w.Name] = true
		was, had := old[w.Name]
		i, there := at[w.Name]
		if !there {
			members = append(members, w)
			continue
		}
		if !had && isA('{', w.Value) {
			was = json.RawMessage("{}") // an object of unknown members only: they stay
		}
		if members[i].Value, err = patch(members[i].Value, was, w.Value); err != nil {
			return nil, err
		}
	}
	left := members[:0]
	for _, m := range members {
		if _, had := old[m.Name]; keep[m.Name] || !had {
			left = append(left, m)
		}
	}
	return joinObject(left), nil
}

func memberMap(object json.RawMessage) (map[string]json.RawMessage, error) {
	members, err := strict.Object(object)
	byName := make(map[string]json.RawMessage, len(members))
	for _, m := range members {
		byName[m.Name] = m.Value
	}
	return byName, err
}

// patchList keeps the elements at both ends that did not change. What is left between them is patched one by one when
// the number is the same, and replaced otherwise.
func patchList(base, before, after json.RawMessage) (json.RawMessage, error) {
	elements, err := strict.List(base)
	if err != nil {
		return nil, err
	}
	old, err := strict.List(before)
	if err != nil {
		return nil, err
	}
	wanted, err := strict.List(after)
	if err != nil {
		return nil, err
	}
	if len(elements) != len(old) {
		return after, nil
	}
	head := 0
	for head < min(len(old), len(wanted)) && bytes.Equal(old[head], wanted[head]) {
		head++
	}
	tail := 0
	for tail < min(len(old), len(wanted))-head && bytes.Equal(old[len(old)-1-tail], wanted[len(wanted)-1-tail]) {
		tail++
	}
	for i := range wanted {
		switch {
		case i < head:
			wanted[i] = elements[i]
		case i >= len(wanted)-tail:
			wanted[i] = elements[len(elements)-(len(wanted)-i)]
		case len(wanted) == len(old):
			if wanted[i], err = patch(elements[i], old[i], wanted[i]); err != nil {
				return nil, err
			}
		}
	}
	return joinList(wanted), nil
}

func joinObject(members []strict.Member) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(m.Key)
		b.WriteByte(':')
		b.Write(m.Value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func joinList(elements []json.RawMessage) json.RawMessage {
	return append(append(json.RawMessage("["), bytes.Join(rawSlices(elements), []byte(","))...), ']')
}

func rawSlices(elements []json.RawMessage) [][]byte {
	slices := make([][]byte, len(elements))
	for i, e := range elements {
		slices[i] = e
	}
	return slices
}

// setMember returns an object with one member replaced, in its place, or put at the end.
func setMember(object json.RawMessage, name string, value json.RawMessage) (json.RawMessage, error) {
	members, err := strict.Object(object)
	if err != nil {
		return nil, err
	}
	for i := range members {
		if members[i].Name == name {
			members[i].Value = value
			return joinObject(members), nil
		}
	}
	key, err := strict.Marshal(name)
	return joinObject(append(members, strict.Member{Name: name, Key: key, Value: value})), err
}
