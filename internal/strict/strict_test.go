package strict

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
)

// sample has one of everything the walker treats differently.
type sample struct {
	Name     string            `json:"name"`
	Count    int64             `json:"count"`
	Labels   map[string]string `json:"labels"`
	Inner    *sample           `json:"inner"`
	List     []sample          `json:"list"`
	ByName   map[string]sample `json:"byName"`
	When     *time.Time        `json:"when"`
	Raw      json.RawMessage   `json:"raw"`
	Any      any               `json:"any"`
	Data     []byte            `json:"data"`
	Untagged bool
	embedded
	Hidden string `json:"-"`
}

type embedded struct {
	Deep string `json:"deep"`
	Name int    // shadowed by the outer one's folded name
}

func TestUnmarshalAccepts(t *testing.T) {
	for _, doc := range []string{
		`{}`, " {\n} ", `{"name":null,"labels":null,"inner":null,"list":null,"when":null}`,
		`{"labels":{"a":"1","A":"2"},"any":{"a":1,"A":2},"raw":{"name":1,"NAME":2},"unknown":{"x":1,"X":{"y":1,"Y":2}}}`,
		`{"byName":{"a":{"name":"x"},"A":{"name":"y"}}}`,
		`{"name":"\ud83d\ude00 \"\\\/\b\u0000","list":[{},{"list":[]}],"count":-9223372036854775808}`,
		`{"NAME":"only one, and Go reads it"}`, `{"big":` + strings.Repeat("9", 400) + `}`,
		`{"any":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `}`,
		`{"when":"2020-01-02T03:04:05.123456789+02:00"}`, `{"-":1,"Hidden":2,"hid":3}`,
	} {
		var v sample
		if err := Unmarshal([]byte(doc), &v); err != nil {
			t.Errorf("%.80s: %v", doc, err)
		}
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	for word, docs := range map[string][]string{
		"json": {"", " ", "{", `{"a"}`, `{"a":1,}`, `{} {}`, `{}x`, "\xef\xbb\xbf{}", "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":"\udc00"}`,
			`{"a":"\ud800\u0041"}`, `{"\ud800":1}`, `{"a":"\ud800`, `{'a':1}`, `{"a":01}`, `{"a":NaN}`, "\x00", `{"a":"` + "\n" + `"}`, `]`, `{"a":[}]`},
		"json-type": {`null`, `[]`, `1`, `"x"`, `true`, `{"name":1}`, `{"count":"1"}`, `{"count":1.5}`, `{"count":1e3}`, `{"count":9223372036854775808}`,
			`{"labels":[]}`, `{"labels":{"a":1}}`, `{"list":{}}`, `{"list":[null]}`, `{"list":[{},null]}`, `{"inner":"x"}`, `{"data":"!"}`, `{"deep":1}`, `{"Untagged":"x"}`},
		"timestamp": {`{"when":"x"}`, `{"when":1}`, `{"when":""}`, `{"when":"2020-01-02"}`, `{"when":"2020-01-02t03:04:05Z"}`},
		"duplicate-key": {`{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"name":"a","Name":"b"}`, `{"unknown":1,"UNKNOWN":2}`, `{"\u212Aey":1,"key":2}`,
			`{"inner":{"count":1,"Count":2}}`, `{"list":[{"name":"","NAME":""}]}`, `{"byName":{"a":{"name":"","NAME":""}}}`,
			`{"labels":{"a":"1","a":"2"}}`, `{"any":{"a":[{"b":1,"b":2}]}}`, `{"raw":{"a":1,"a":2}}`, `{"deep":"","Deep":""}`, `{"Untagged":true,"untagged":true}`},
		"depth": {strings.Repeat("[", 129) + strings.Repeat("]", 129), strings.Repeat("[", 5_000_000), `{"a":` + strings.Repeat(`{"a":`, 128)},
	} {
		class := kimg.ErrInvalid
		if word == "depth" {
			class = kimg.ErrLimit
		}
		for _, doc := range docs {
			var v sample
			err := Unmarshal([]byte(doc), &v)
			if !errors.Is(err, class) || !strings.HasPrefix(err.Error(), word+":") {
				t.Errorf("%.80q: want %s, got %v", doc, word, err)
			}
		}
	}
}

func TestErrorsRepeatNothing(t *testing.T) {
	for _, doc := range []string{
		`{"SECRET":1,"SECRET":2}`, `{"count":"SECRET"}`, `{"when":"SECRET"}`, `{"data":"SECRET!"}`, `SECRET`, `{"labels":{"SECRET":1}}`,
		`{"count":123456789012345678901234567890}`, `{"byName":{"SECRET":{"name":1}}}`,
	} {
		var v sample
		if err := Unmarshal([]byte(doc), &v); err == nil || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "12345") {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestUnmarshalExact(t *testing.T) {
	for _, doc := range []string{`{"Name":""}`, `{"inner":{"LIST":[]}}`, `{"list":[{"Deep":""}]}`, `{"untagged":true}`} {
		var v sample
		if err := UnmarshalExact([]byte(doc), &v); !errors.Is(err, kimg.ErrInvalid) || !strings.HasPrefix(err.Error(), "duplicate-key:") {
			t.Errorf("%s: %v", doc, err)
		}
	}
	var v sample
	if err := UnmarshalExact([]byte(`{"name":"a","labels":{"Name":"b"},"any":{"Name":1},"other":{"Name":1}}`), &v); err != nil || v.Name != "a" {
		t.Error(err)
	}
}

func TestUnmarshalNeedsAPointer(t *testing.T) {
	if err := Unmarshal([]byte("{}"), sample{}); !errors.Is(err, kimg.ErrInternal) {
		t.Error(err)
	}
	if err := Unmarshal([]byte("{}"), nil); !errors.Is(err, kimg.ErrInternal) {
		t.Error(err)
	}
}

func TestRespell(t *testing.T) {
	const odd = ` {"NAME" : "x", "labels":{"NAME":"1"},"list":[{},{"Count":1 , "x":[1]}], "inner":{"Deep":"","raw":{"Raw":0}}}`
	const want = ` {"name" : "x", "labels":{"NAME":"1"},"list":[{},{"count":1 , "x":[1]}], "inner":{"deep":"","raw":{"Raw":0}}}`
	got, paths, err := Respell([]byte(odd), &sample{})
	if err != nil || string(got) != want || !reflect.DeepEqual(paths, []string{"name", "list[1].count", "inner.deep"}) {
		t.Errorf("%s %v %v", got, paths, err)
	}
	same := []byte(want)
	if got, paths, err := Respell(same, &sample{}); err != nil || &got[0] != &same[0] || paths != nil {
		t.Error("a good document was copied")
	}
	if _, _, err := Respell([]byte(`{"name":1,"NAME":2}`), &sample{}); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
}

// The fold must be the one of Go's decoder, or keys it confuses would pass.
func TestFoldIsTheDecoders(t *testing.T) {
	for _, keys := range [][2]string{{"name", "NAME"}, {"name", "ńame"}, {"x", "y"}, {"Count", "cOUNT"}} {
		var v sample
		err := json.Unmarshal([]byte(`{"`+keys[1]+`":null,"name":"x"}`), &v)
		if err != nil {
			t.Fatal(err)
		}
		if (fold(keys[0]) == fold(keys[1])) != strings.EqualFold(keys[0], keys[1]) {
			t.Errorf("%q", keys)
		}
	}
	var v struct {
		K string `json:"key"`
		S string `json:"sum"`
	}
	if err := json.Unmarshal([]byte(`{"`+"\u212a"+`ey":"kelvin","`+"\u017f"+`um":"long s"}`), &v); err != nil {
		t.Fatal(err)
	}
	if (v.K == "kelvin") != (fold("\u212aey") == fold("key")) || (v.S == "long s") != (fold("\u017fum") == fold("sum")) {
		t.Errorf("%+v", v)
	}
}

func TestSize(t *testing.T) {
	if err := Size("manifest", MaxDocument, MaxDocument); err != nil {
		t.Error(err)
	}
	err := Size("manifest", MaxDocument+1, MaxDocument)
	if !errors.Is(err, kimg.ErrLimit) || err.Error() != "manifest: too-big: 4194305 bytes, the limit is 4194304" {
		t.Error(err)
	}
}

func TestUnmarshalAnything(t *testing.T) {
	if err := Unmarshal([]byte(`[null,{"a":1,"A":2}]`), new(any)); err != nil {
		t.Error(err)
	}
	if err := Unmarshal([]byte(`[{"a":1,"a":2}]`), new(any)); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
}

func TestSplit(t *testing.T) {
	members, err := Object([]byte(" { \"a\" : [1, 2] ,\"\\u0062\":{\"x\": null }, \"c\":-1e5} "))
	if err != nil || len(members) != 3 {
		t.Fatal(members, err)
	}
	for i, want := range []string{`a "a" [1, 2]`, `b "\u0062" {"x": null }`, `c "c" -1e5`} {
		if got := members[i].Name + " " + string(members[i].Key) + " " + string(members[i].Value); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	elements, err := List([]byte("[ \"a,]\" , {} ,[[]],true\n]"))
	if err != nil || len(elements) != 4 || string(elements[0]) != `"a,]"` || string(elements[3]) != "true" {
		t.Errorf("%s %v", elements, err)
	}
	if elements, err := List([]byte("[]")); err != nil || elements == nil || len(elements) != 0 {
		t.Error(elements, err)
	}
	for _, bad := range []string{"", "null", "[", "{", "{}", `"x"`, "[1] 2"} {
		if _, err := List([]byte(bad)); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
		if _, err := Object([]byte(strings.NewReplacer("{}", "[]").Replace(bad))); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
