package strict

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/kimg/kimg"
)

// FuzzUnmarshal: nothing panics, every refusal has a class and one line, and what is accepted has one meaning: Go's
// decoder reads the same from it whatever the order of members, and splitting and joining it loses nothing.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `{"name":"a","NAME":"b"}`, `{"labels":{"a":"1","A":"2"}}`, `{"list":[{"inner":{"count":1}}]}`, `{"a":"\ud83d\ude00"}`,
		`{"a":"\ud800"}`, "\xef\xbb\xbf{}", `{} {}`, strings.Repeat("[", 200), `{"when":"2020-01-02T03:04:05Z"}`, `{"any":[1e400,-0,""]}`, ` [ ] `, `"\u`, `{"a`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v, again sample
		err := Unmarshal(data, &v)
		if err != nil {
			if c := kimg.ClassOf(err); c != kimg.ErrInvalid && c != kimg.ErrLimit {
				t.Fatalf("class %s: %v", c, err)
			}
			if strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 300 {
				t.Fatalf("not a line: %q", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("accepted what is not JSON")
		}
		turned := turn(t, data)
		if err := Unmarshal(turned, &again); err != nil {
			t.Fatalf("%v in another order: %s", err, turned)
		}
		v.Raw, again.Raw = nil, nil // it keeps the order
		if !reflect.DeepEqual(v, again) {
			t.Fatalf("another order, another meaning:\n%+v\n%+v", v, again)
		}
	})
}

// turn returns a document with the members of its objects in the opposite order.
func turn(t *testing.T, data []byte) []byte {
	switch data = bytes.TrimSpace(data); data[0] {
	case '{':
		members, err := Object(data)
		if err != nil {
			t.Fatal(err)
		}
		parts := make([][]byte, len(members))
		for i, m := range members {
			parts[len(parts)-1-i] = append(append(bytes.Clone(m.Key), ':'), turn(t, m.Value)...)
		}
		return append(append([]byte("{"), bytes.Join(parts, []byte(","))...), '}')
	case '[':
		elements, err := List(data)
		if err != nil {
			t.Fatal(err)
		}
		parts := make([][]byte, len(elements))
		for i, e := range elements {
			parts[i] = turn(t, e)
		}
		return append(append([]byte("["), bytes.Join(parts, []byte(","))...), ']')
	}
	return data
}

func FuzzNames(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add(strings.Repeat("f", 64))
	f.Add("box-1")
	f.Fuzz(func(t *testing.T, s string) {
		for name, check := range map[string]func(string) error{"id": ID, "digest": Digest, "name": Name} {
			err := check(s)
			if err == nil && (strings.ContainsAny(s, "/\\ \x00\n") || s == "" || s == ".." || s[0] == '-' || len(s) > 200) {
				t.Errorf("%s accepts %q", name, s)
			}
			if err != nil && len(kimg.Line(err)) > 600 {
				t.Errorf("%s: long error", name)
			}
		}
	})
}
