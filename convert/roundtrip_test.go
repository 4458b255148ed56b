package convert_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// fataler is what tests, fuzz targets and properties have in common.
type fataler interface {
	Helper()
	Fatal(...any)
}

// rest is what a document says but for the members that a report names and others ("layers[].mediaType"), in one
// spelling. Members that say nothing are left out.
func rest(t fataler, document []byte, r convert.Report, others ...string) string {
	t.Helper()
	gone := map[string]bool{}
	for _, path := range others {
		gone[strings.ToLower(path)] = true
	}
	for _, c := range r {
		if c.Kind != convert.Warning {
			gone[strings.ToLower(c.Path)] = true
		}
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(left(v, "", gone))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

var number = regexp.MustCompile(`\[[0-9]+\]`)

func left(v any, at string, gone map[string]bool) any {
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			path := strings.TrimPrefix(at+"."+strings.ToLower(key), ".")
			if e = left(e, path, gone); gone[path] || gone[number.ReplaceAllString(path, "[]")] || e == nil || e == "" || e == false {
				delete(v, key)
				continue
			}
			v[key] = e
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i, e := range v {
			v[i] = left(e, fmt.Sprintf("%s[%d]", at, i), gone)
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// thereAndBack converts an image to another format and back, and checks what comes out on the way: it is good, it is
// the same twice, and OCI documents are valid by the specification.
func thereAndBack(t fataler, doc convert.Document, via convert.Format, layers []convert.Layer, o convert.Options) (there, back convert.Document, r1, r2 convert.Report, err error) {
	t.Helper()
	from, err := convert.Detect(doc.Manifest, "")
	if err != nil {
		t.Fatal(err)
	}
	if there, r1, err = convert.Convert(doc, via, layers, o); err != nil {
		return there, back, r1, r2, err
	}
	again, r, err := convert.Convert(doc, via, layers, o)
	if err != nil || !bytes.Equal(again.Manifest, there.Manifest) || !bytes.Equal(again.Config, there.Config) || fmt.Sprint(r) != fmt.Sprint(r1) {
		t.Fatal("not the same twice", err)
	}
	if back, r2, err = convert.Convert(there, from, layers, o); err != nil {
		return there, back, r1, r2, err
	}
	for _, d := range []convert.Document{there, back} {
		if d.Format == convert.DockerV2S1 {
			continue
		}
		if _, err := convert.Parse(d, nil); err != nil {
			t.Fatal(err, string(d.Manifest), string(d.Config))
		}
	}
	return there, back, r1, r2, nil
}

// anyOld is a configuration as old Docker releases wrote them, or a good one, and whether it is good for OCI as it is.
func anyOld(t *rapid.T) (config string, layers int, good bool) {
	config = anySource(t)
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(config), &m); err != nil {
		t.Fatal(err)
	}
	var img docker.Image
	if err := json.Unmarshal([]byte(config), &img); err != nil {
		t.Fatal(err)
	}
	layers, good = len(img.RootFS.DiffIDs), img.OS != "" && img.Architecture != ""
	change := rapid.SampledFrom([]string{"", "", "Cmd", "Entrypoint", "os", "nulls", "diff_ids"}).Draw(t, "as old")
	switch {
	case change == "":
		return config, layers, good
	case change == "os":
		delete(m, "os")
	case change == "nulls":
		m["config"] = json.RawMessage(`{"Env":null,"Cmd":null,"Entrypoint":[],"Volumes":null,"ExposedPorts":null,"OnBuild":null,"Labels":{}}`)
		m["created"], m["os.features"] = json.RawMessage(`null`), json.RawMessage(`null`)
	case change == "diff_ids" && layers == 0:
		m["rootfs"] = json.RawMessage(`{"type":"layers","diff_ids":null}`)
	case change != "diff_ids":
		m["config"] = json.RawMessage(`{"` + change + `":"a bare string"}`)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), layers, good && (change == "nulls" || change == "diff_ids" && layers > 0)
}

// Schema 2 to OCI and back: the configuration keeps its bytes, unless OCI cannot read it, and then the report says all
// that changed.
func TestSchema2ThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config, n, good := anyOld(t)
		doc := document(t, convert.DockerV2S2, config, n)
		there, back, r1, r2, err := thereAndBack(t, doc, convert.OCI, nil, convert.Options{})
		if err != nil || r2 != nil {
			t.Fatal(err, r2)
		}
		validSchema(t, "config-schema.json", there.Config, true)
		validSchema(t, "image-manifest-schema.json", there.Manifest, false)
		if good && (r1 != nil || string(there.Config) != config || string(back.Config) != config || string(back.Manifest) != string(doc.Manifest)) {
			t.Fatalf("%v\n%s\n%s", r1, config, there.Config)
		}
		if good {
			return
		}
		for _, c := range r1 {
			if !slices.Contains([]string{"os", "architecture", "config.Cmd", "config.Entrypoint", "rootfs.diff_ids"}, c.Path) || c.Kind != convert.Added && c.Kind != convert.Changed {
				t.Fatal(c)
			}
		}
		if want, got := rest(t, []byte(config), r1), rest(t, back.Config, r1); len(r1) == 0 || want != got {
			t.Fatalf("%v\n%s\n%s", r1, want, got)
		}
		if _, _, err := convert.Convert(doc, convert.OCI, nil, convert.Options{DockerFields: convert.DockerDrop}); err != nil {
			t.Fatal(err)
		}
	})
}

// OCI to schema 2 and back: what the report does not name is as it was.
func TestOCIThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := anySource(t)
		var img docker.Image
		if err := json.Unmarshal([]byte(config), &img); err != nil {
			t.Fatal(err)
		}
		img.OS, img.Architecture = img.OS+"x", img.Architecture+"x" // as OCI requires
		raw, _ := json.Marshal(img)
		config = scramble(t, raw, "")
		doc := document(t, convert.OCI, config, len(img.RootFS.DiffIDs))
		doc.Manifest = []byte(scramble(t, enrich(t, doc.Manifest), "manifest"))
		_, back, r1, r2, err := thereAndBack(t, doc, convert.DockerV2S2, nil, convert.Options{})
		if err != nil || r2 != nil || string(back.Config) != config {
			t.Fatal(err, r2)
		}
		if want, got := rest(t, doc.Manifest, r1), rest(t, back.Manifest, nil); want != got {
			t.Fatalf("%v\n%s\n%s", r1, want, got)
		}
		for _, c := range r1 {
			if c.Kind != convert.Lost {
				t.Fatal(c)
			}
		}
		strict, report, err := convert.Convert(doc, convert.OCI, nil, convert.Options{DockerFields: convert.DockerDrop})
		if err != nil {
			t.Fatal(err)
		}
		validSchema(t, "config-schema.json", strict.Config, false)
		validSchema(t, "image-manifest-schema.json", strict.Manifest, false)
		if want, got := rest(t, []byte(config), report), rest(t, strict.Config, nil); want != got {
			t.Fatalf("%v\n%s\n%s", report, want, got)
		}
	})
}

// enrich adds to an OCI manifest what only OCI can say, and what nobody can.
func enrich(t *rapid.T, manifest []byte) []byte {
	var m map[string]any
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	some := func(object any, what string) {
		o := object.(map[string]any)
		for name, value := range map[string]any{
			"annotations": labels.Draw(t, what), "x-unknown": []any{map[string]any{"y": 1.5}}, "artifactType": "application/x.y",
			"urls": []string{"https://example.org/" + what}, "platform": map[string]any{"architecture": "a", "os": "b"},
		} {
			if rapid.Bool().Draw(t, what+name) {
				o[name] = value
			}
		}
		if l, ok := o["annotations"].(map[string]string); ok {
			delete(l, "") // the schema does not allow it
		}
	}
	some(m["config"], "config")
	for _, l := range m["layers"].([]any) {
		some(l, "layer")
	}
	some(m, "manifest")
	delete(m, "urls")
	if rapid.Bool().Draw(t, "subject") {
		m["subject"] = map[string]any{"mediaType": "application/x.z", "digest": diffC, "size": 3}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
