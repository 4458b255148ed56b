package convert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/kimg/kimg/internal/strict"
)

// prune leaves out of a document every member that a Go type does not define, and reports each by its path. Members
// it keeps keep their bytes. The document must have passed the strict decode before.
func prune(document json.RawMessage, t reflect.Type, why string) (json.RawMessage, Report, error) {
	p := pruner{why: why}
	out, err := p.value(document, t, "")
	return out, p.report, err
}

// pruner is a prune on its way.
type pruner struct {
	why    string
	nulls  bool // leave out members that are null, too
	report Report
}

// value prunes the objects that are decoded into structs; any other value is a leaf.
func (p *pruner) value(raw json.RawMessage, t reflect.Type, path string) (json.RawMessage, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Struct && t.NumField() > 0 && isA('{', raw):
		return p.object(raw, fieldsOf(t), path)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && isA('[', raw):
		elements, err := strict.List(raw)
		before := len(p.report)
		for i := range elements {
			if err == nil {
				elements[i], err = p.value(elements[i], t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
		}
		if len(p.report) == before || err != nil {
			return raw, err
		}
		return joinList(elements), nil
	}
	return raw, nil
}

func (p *pruner) object(raw json.RawMessage, known map[string]reflect.Type, path string) (json.RawMessage, error) {
	members, err := strict.Object(raw)
	if err != nil {
		return nil, err
	}
	before := len(p.report)
	kept := members[:0]
	for _, m := range members {
		at := m.Name
		if path != "" {
			at = path + "." + m.Name
		}
		t, ok := known[m.Name]
		if !ok {
			if err := p.lost(m, at); err != nil {
				return nil, err
			}
			continue
		}
		if p.nulls && string(m.Value) == "null" {
			p.report = append(p.report, Change{at, Changed, "null says the same as being absent, and OCI does not allow it everywhere"})
			continue
		}
		if m.Value, err = p.value(m.Value, t, at); err != nil {
			return nil, err
		}
		kept = append(kept, m)
	}
	if len(p.report) == before && len(kept) == len(members) {
		return raw, nil
	}
	return joinObject(kept), nil
}

// lost reports a member; annotations one by one, because each is somebody else's.
func (p *pruner) lost(m strict.Member, path string) error {
	if m.Name != "annotations" || !isA('{', m.Value) {
		p.report = append(p.report, Change{path, Lost, p.why})
		return nil
	}
	keys, err := strict.Object(m.Value)
	for _, key := range keys {
		p.report = append(p.report, Change{path + "." + key.Name, Lost, p.why})
	}
	return err
}

// fieldsOf returns the members a struct is decoded from, those of embedded structs included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	known := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			known[name] = f.Type
		}
	}
	return known
}

// inOrder sorts changes by where their members stand in a document: by member, and by element or member of that.
// Members that the document does not have come last.
func (r Report) inOrder(document json.RawMessage) (Report, error) {
	if len(r) < 2 {
		return r, nil
	}
	top, err := strict.Object(document)
	if err != nil {
		return nil, err
	}
	at := map[string][2]int{}
	for i, m := range top {
		at[m.Name] = [2]int{i, -1}
		if !isA('{', m.Value) {
			continue
		}
		inner, err := strict.Object(m.Value)
		if err != nil {
			return nil, err
		}
		for j, n := range inner {
			at[m.Name+"."+n.Name] = [2]int{i, j}
		}
	}
	place := func(path string) [2]int {
		for end := len(path); end > 0; end = strings.LastIndexAny(path[:end], ".[") {
			p, ok := at[path[:end]]
			if !ok {
				continue
			}
			if number, _, isElement := strings.Cut(strings.TrimPrefix(path[end:], "["), "]"); isElement && p[1] < 0 {
				p[1], _ = strconv.Atoi(number)
			}
			return p
		}
		return [2]int{len(top), 0}
	}
	slices.SortStableFunc(r, func(a, b Change) int {
		p, q := place(a.Path), place(b.Path)
		return cmp.Or(cmp.Compare(p[0], q[0]), cmp.Compare(p[1], q[1]))
	})
	return r, nil
}
