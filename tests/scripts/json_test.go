package scripts

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestJSONIsAsDocumented: every result begins with the schema, and its members, at any depth, are in the row of its command in
// docs/json.md, or in a row that this one leans on.
func TestJSONIsAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/json.md")
	check(t, err)
	word := regexp.MustCompile("`([^`]+)`")
	rows := map[string][]string{} // the words of a row by its first cell
	for line := range strings.Lines(string(page)) {
		if cells := strings.SplitN(line, " | ", 2); len(cells) == 2 && strings.HasPrefix(line, "| ") {
			for _, m := range word.FindAllStringSubmatch(cells[1], -1) {
				rows[cells[0][2:]] = append(rows[cells[0][2:]], m[1])
			}
		}
	}
	l := fixture(t)
	for _, line := range []string{"lease add --owner me base:1", "manifest create list:1 base:1", "push base:1 oci:dest/layout:a"} {
		l.must(t, strings.Fields(line)...)
	}
	const image, state, made, conversion = "`images`", "`inspect` of a container", "`commit`, `import`", "`convert`"
	for _, c := range []struct {
		line string
		rows []string
	}{
		{"version", []string{"`version`"}},
		{"info", []string{"`info`"}},
		{"from --name new base:1", []string{"`from`, `config`"}},
		{"config --env A=1 new", []string{"`from`, `config`"}},
		{"config --image base:1 --env A=1 edited:1", []string{made, "`diff --tar -o FILE`"}},
		{"containers", []string{"`containers`"}},
		{"mount new", []string{"`mount`"}},
		{"umount new", []string{"`umount`"}},
		{"diff c1", []string{"`diff`"}},
		{"diff --tar -o dest/l.tar c1", []string{"`diff --tar -o FILE`"}},
		{"export -o dest/e.tar c1", []string{"`diff --tar -o FILE`"}},
		{"commit c1 made:1 oci:dest/layout:b", []string{made, "`diff --tar -o FILE`"}},
		{"import tree", []string{made, "`diff --tar -o FILE`"}},
		{"images", []string{image}},
		{"tag base:1 more:1", []string{image}},
		{"inspect --type image base:1", []string{"`inspect` of an image", image, made}},
		{"inspect c1", []string{state, "`from`, `config`", "`inspect` of an image", made}},
		{"inspect oci:dest/layout:a", []string{"`inspect` of an image elsewhere"}},
		{"history made:1", []string{"`history`"}},
		{"tree made:1", []string{"`tree`", image}},
		{"tree --whatrequires base:1", []string{"`tree`", image}},
		{"lease ls", []string{"`lease ls`, `lease add`"}},
		{"lease rm --all", []string{"`lease rm`"}},
		{"convert --proof base:1 dir:dest/v2", []string{conversion}},
		{"copy base:1 dir:dest/copy", []string{conversion}},
		{"pull oci:dest/layout:a", []string{"`pull`"}},
		{"manifest inspect list:1", []string{"`manifest inspect`"}},
		{"manifest push list:1 oci:dest/layout:list", []string{conversion}},
		{"manifest create list:2 base:1", []string{"`manifest create`, `add`, `annotate`, `remove`"}},
		{"manifest rm list:1", []string{"`manifest rm`"}},
		{"save -o dest/s.tar base:1", []string{"`save -o FILE`", made}},
		{"load -i dest/s.tar", []string{"`load`"}},
		{"validate oci:dest/layout:a", []string{"`validate`"}},
		{"check", []string{"`check`"}},
		{"gc --filter until=0s", []string{"`gc`"}},
		{"rmi edited:1", []string{"`rmi`"}},
		{"rm new", []string{"`rm`"}},
	} {
		allowed := []string{"schema"}
		for _, row := range c.rows {
			if rows[row] == nil {
				t.Fatalf("docs/json.md has no row %s", row)
			}
			allowed = append(allowed, rows[row]...)
		}
		out := l.must(t, append([]string{"--json"}, strings.Fields(c.line)...)...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil || !strings.HasPrefix(out, "{\n  \"schema\": 1,") {
			t.Errorf("%s: %v: %s", c.line, err, out)
		}
		for _, member := range members(v) {
			if !slices.Contains(allowed, member) {
				t.Errorf("%s prints %s, which docs/json.md does not say of it", c.line, member)
			}
		}
	}
}

// members are the names of members at any depth, but for documents and maps whose names are not ours.
func members(v any) (all []string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			all = append(all, members(e)...)
		}
	case map[string]any:
		for name, e := range v {
			all = append(all, name)
			if !slices.Contains([]string{"oci", "docker", "manifest", "index", "annotations", "driverStatus", "platform"}, name) {
				all = append(all, members(e)...)
			} else if name == "oci" || name == "docker" { // of losses: a list
				list, _ := e.([]any)
				all = append(all, members(list)...)
			}
		}
	}
	return all
}
