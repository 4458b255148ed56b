package copydata_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
)

// refused checks that a file is refused as P10 wants it: class state, one short line, nothing of the content in it.
func refused(t *testing.T, name string, data []byte) {
	t.Helper()
	dir := &copydata.Memory{}
	dir.Put(ctr, copydata.FileName, data)
	c, err := copydata.Load(dir, ctr)
	if kimg.ClassOf(err) != kimg.ErrState || c != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if text := err.Error(); strings.ContainsAny(text, "\n\r\x1b") || len(text) > 400 || strings.Contains(text, "SECRET") {
		t.Errorf("%s: not one clean line: %q", name, text)
	}
	if !strings.HasPrefix(err.Error(), "state of container "+ctr+": ") {
		t.Errorf("%s: the container is not named: %v", name, err)
	}
}

func TestDamagedFiles(t *testing.T) {
	_, dir := saved(t, origin(t, convert.OCI))
	good := content(t, dir)
	for name, data := range map[string][]byte{
		"empty": {}, "null": []byte("null"), "object": []byte("{}"), "list": []byte("[]"), "text": []byte("SECRET"),
		"space": []byte("  \n"), "two": append(slices.Clone(good), good...), "mark": append([]byte("\xef\xbb\xbf"), good...),
		"deep":     []byte(`{"type":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`),
		"twice":    bytes.Replace(good, []byte(`{"type"`), []byte(`{"schema":1,"type"`), 1),
		"look":     bytes.Replace(good, []byte(`{"type"`), []byte(`{"Schema":1,"type"`), 1),
		"halves":   bytes.Replace(good, []byte(`"ociv1":{"created":"2020`), []byte(`"ociv1":{"created":"2021`), 1),
		"too long": append(slices.Clone(good), bytes.Repeat([]byte(" "), copydata.MaxSize)...),
	} {
		refused(t, name, data)
	}
	for n := range len(good) - 1 { // the last byte is a newline
		if n%7 == 0 || n > len(good)-50 {
			refused(t, fmt.Sprintf("cut at %d", n), good[:n])
		}
	}
}

// Every member, missing, null, of every other type, or with bad content.
func TestDamagedMembers(t *testing.T) {
	c, dir := saved(t, origin(t, convert.OCI))
	err := c.Update(func(s *copydata.Settings) error { s.CreatedBy, s.MountPoint = "x", "/x"; return nil })
	if err := errors.Join(err, c.Save(dir)); err != nil {
		t.Fatal(err)
	}
	var good map[string]json.RawMessage
	if err := json.Unmarshal(content(t, dir), &good); err != nil {
		t.Fatal(err)
	}
	// Members whose absence, or null, is a value.
	optional := []string{"container-name", "image", "manifest", "mountpoint", "annotations", "created-by", "history"}
	values := map[string]string{
		"boolean": `true`, "number": `17`, "negative": `-1`, "fraction": `1.5`, "huge": `1e400`, "string": `"SECRET\u001b\n"`,
		"empty string": `""`, "list": `["SECRET"]`, "object": `{"SECRET":{"SECRET":1}}`, "missing": "", "null": `null`,
		"empty list": `[]`, "empty object": `{}`,
	}
	// What may stand there all the same.
	fine := map[string][]string{
		"generation": {"number"}, "container-name": {"empty string"}, "image": {"empty string"},
		"mountpoint": {"empty string"}, "annotations": {"empty object"}, "created-by": {"string", "empty string"},
		"history": {"list", "empty list"},
	}
	for member := range good {
		for kind, value := range values {
			bad := map[string]json.RawMessage{}
			for k, v := range good {
				bad[k] = v
			}
			if bad[member] = json.RawMessage(value); value == "" {
				delete(bad, member)
			}
			data, err := json.Marshal(bad)
			if err != nil {
				t.Fatal(err)
			}
			absent := kind == "missing" || kind == "null"
			if absent && slices.Contains(optional, member) || slices.Contains(fine[member], kind) {
				dir := &copydata.Memory{}
				dir.Put(ctr, copydata.FileName, data)
				if c, err := copydata.Load(dir, ctr); err != nil {
					t.Errorf("%s %s: %v", member, kind, err)
				} else if err := c.Save(dir); err != nil {
					t.Errorf("%s %s: save: %v", member, kind, err)
				}
				continue
			}
			refused(t, member+" "+kind, data)
		}
	}
	for member, contents := range map[string][]string{
		"type":           {`"kimg container state 2"`},
		"schema":         {`0`, `3`, `18446744073709551616`},
		"generation":     {`0`, `18446744073709551616`},
		"container-id":   {`"` + other + `"`, `"` + ctr + `\n"`, `"` + strings.ToUpper(imgID) + `a"`, `"../../../../etc"`},
		"container-name": {`"../SECRET"`, `"-v"`, `"a b"`, `"` + strings.Repeat("a", 129) + `"`},
		"image-id":       {`"` + imgID[1:] + `"`, `"sha256:` + imgID + `"`, `"` + strings.Repeat("A", 64) + `"`},
		"image":          {`"a\u0000b"`, `"` + strings.Repeat("a", 2000) + `"`},
		"mountpoint":     {`"SECRET"`, `"/a/../b"`, `"/a/"`, `"/a\u0000"`, `"//"`, `"/` + strings.Repeat("a", 5000) + `"`},
		"annotations":    {`{"":"x"}`, `{"a":1}`, `{"a":null,"a":"b"}`},
		"format":         {`"v2s1"`, `"v2s2"`, `"x"`},
		"config":         {`"e30="`, `"!!"`, `"bnVsbA=="`},
		"manifest":       {`"e30="`, `"bnVsbA=="`},
		"docker":         {`{"rootfs":{"type":"SECRET"}}`, `{"rootfs":{"type":"layers","diff_ids":["SECRET"]}}`, `{"rootfs":{"type":"layers"},"created":"SECRET"}`},
		"ociv1":          {`{"rootfs":{"type":"layers","diff_ids":[]}}`, `{"config":{"Cmd":"SECRET"}}`},
	} {
		for _, value := range contents {
			bad := map[string]json.RawMessage{}
			for k, v := range good {
				bad[k] = v
			}
			delete(bad, member)
			rest, err := json.Marshal(bad)
			if err != nil {
				t.Fatal(err)
			}
			refused(t, member+"="+value, []byte(strings.TrimSuffix(string(rest), "}")+`,"`+member+`":`+value+"}"))
		}
	}
}

func TestLoadPassesOtherErrors(t *testing.T) {
	if _, err := copydata.Load(&copydata.Memory{}, ctr); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Error(err)
	}
	if _, err := copydata.Load(&copydata.Memory{}, "../x"); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error(err)
	}
}

func TestGeneration(t *testing.T) {
	_, dir := saved(t, copydata.Origin{})
	if n, err := copydata.Generation(content(t, dir)); n != 1 || err != nil {
		t.Error(n, err)
	}
	for _, bad := range []string{"", "null", "{}", `{"type":"x","generation":1}`, `{"type":"kimg container state"}`, `{"type":"kimg container state","generation":-1}`} {
		if _, err := copydata.Generation([]byte(bad)); kimg.ClassOf(err) != kimg.ErrState {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
