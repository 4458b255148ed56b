package convert_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// schemas reads the JSON schemas of the OCI image specification, which are part of its Go module.
var schemas = sync.OnceValues(func() (map[string]map[string]any, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/image-spec").Output()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "schema", "*.json"))
	all := map[string]map[string]any{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		var s map[string]any
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil {
			return nil, err
		}
		all[filepath.Base(f)] = s
	}
	return all, err
})

// validSchema fails when a document is not what a schema of the specification says. Optional members may be null when
// nulls is set: Docker writes such, every reader takes them as absent, and changing them would change the image ID.
func validSchema(t interface{ Fatal(...any) }, file string, document []byte, nulls bool) {
	all, err := schemas()
	if err != nil || all[file] == nil {
		t.Fatal("no schema ", file, err)
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	c := checker{all, nulls}
	if err := c.check(file, all[file], v, ""); err != nil {
		t.Fatal(fmt.Sprintf("%s: %v\n%s", file, err, document))
	}
}

// checker knows as much of JSON schema, draft 4, as those schemas use.
type checker struct {
	all   map[string]map[string]any
	nulls bool
}

func (c checker) check(file string, s map[string]any, v any, at string) error {
	for key, arg := range s {
		if err := c.rule(file, s, key, arg, v, at); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) rule(file string, s map[string]any, key string, arg, v any, at string) error {
	object, isObject := v.(map[string]any)
	list, isList := v.([]any)
	text, isText := v.(string)
	number, isNumber := v.(json.Number)
	switch key {
	case "$ref":
		name, pointer, _ := strings.Cut(arg.(string), "#")
		if name == "" {
			name = file
		}
		target := c.all[path.Base(name)]
		for p := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if p != "" {
				target = target[p].(map[string]any)
			}
		}
		return c.check(name, target, v, at)
	case "type":
		is := map[string]bool{
			"object": isObject, "array": isList, "string": isText, "null": v == nil, "integer": isNumber && !strings.ContainsAny(string(number), ".eE"),
			"boolean": v == true || v == false,
		}
		if !is[arg.(string)] {
			return fmt.Errorf("%s is %T, not %s", at, v, arg)
		}
	case "properties":
		for name, rule := range arg.(map[string]any) {
			value, there := object[name]
			required, _ := s["required"].([]any)
			if !there || value == nil && c.nulls && !slices.Contains(required, any(name)) {
				continue
			}
			if err := c.check(file, rule.(map[string]any), value, at+"."+name); err != nil {
				return err
			}
		}
	case "required":
		for _, name := range arg.([]any) {
			if _, there := object[name.(string)]; isObject && !there {
				return fmt.Errorf("%s has no %s", at, name)
			}
		}
	case "items":
		for i, e := range list {
			if err := c.check(file, arg.(map[string]any), e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "patternProperties":
		for pattern, rule := range arg.(map[string]any) {
			for name, e := range object {
				if ok, _ := regexp.MatchString(pattern, name); ok {
					if err := c.check(file, rule.(map[string]any), e, at+"."+name); err != nil {
						return err
					}
				}
			}
		}
	case "oneOf":
		good := 0
		for _, rule := range arg.([]any) {
			if c.check(file, rule.(map[string]any), v, at) == nil {
				good++
			}
		}
		if good != 1 {
			return fmt.Errorf("%s fits %d of its forms", at, good)
		}
	case "enum":
		if !slices.Contains(arg.([]any), v) {
			return fmt.Errorf("%s is %v", at, v)
		}
	case "pattern":
		if ok, _ := regexp.MatchString(arg.(string), text); isText && !ok {
			return fmt.Errorf("%s does not match", at)
		}
	case "minimum", "maximum":
		n, _ := number.Float64()
		if isNumber && (key == "minimum" && n < arg.(float64) || key == "maximum" && n > arg.(float64)) {
			return fmt.Errorf("%s is %s", at, number)
		}
	case "format":
		if _, err := time.Parse(time.RFC3339, text); isText && arg == "date-time" && err != nil {
			return fmt.Errorf("%s is no date", at)
		}
	case "minItems": // an image without layers is good: the text of the specification only says SHOULD
	case "description", "$schema", "id", "definitions", "media":
	default:
		return fmt.Errorf("the schema has a rule %s that nobody checks", key)
	}
	return nil
}

// The checker finds what is wrong; otherwise it would prove nothing.
func TestSchemaChecker(t *testing.T) {
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, old, new string
	}{
		{"image-manifest-schema.json", `"schemaVersion":2`, `"schemaVersion":3`},
		{"image-manifest-schema.json", `"size":7`, `"size":"7"`},
		{"image-manifest-schema.json", `sha256:`, `sha256`},
		{"image-manifest-schema.json", `"annotations":{"m":"3"}`, `"annotations":{"m":3}`},
		{"image-manifest-schema.json", `"layers"`, `"Layers"`},
		{"image-index-schema.json", `"os":"linux"`, `"os":null`},
		{"image-index-schema.json", `image.manifest.v1+json`, `image.manifest.v1 json`},
		{"config-schema.json", `"os":"linux"`, `"os":1`},
		{"config-schema.json", `"diff_ids":[`, `"diff_ids":null,"x":[`},
		{"config-schema.json", `"type":"layers"`, `"type":"layer"`},
		{"config-schema.json", `"os":"linux"`, `"os":"linux","config":{"Cmd":"sh"}`},
		{"config-schema.json", `"os":"linux"`, `"os":"linux","config":{"Volumes":{"a":1}}`},
		{"config-schema.json", `"os":"linux"`, `"os":"linux","created":"yesterday"`},
		{"config-schema.json", `"os":"linux"`, `"os":"linux","history":[{"empty_layer":"yes"}]`},
	} {
		good := map[string]string{"image-manifest-schema.json": ociManifest, "image-index-schema.json": ociIndex, "config-schema.json": ociConfig}[c.file]
		validSchema(t, c.file, []byte(good), false)
		bad := strings.Replace(good, c.old, c.new, 1)
		var v any
		d := json.NewDecoder(strings.NewReader(bad))
		d.UseNumber()
		if err := d.Decode(&v); err != nil || bad == good {
			t.Fatal(c.new, err)
		}
		if (checker{all, true}).check(c.file, all[c.file], v, "") == nil {
			t.Errorf("%s is good", c.new)
		}
	}
}
