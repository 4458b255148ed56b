package failpoint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryNameIsUsedAndListed holds the list and the source equal.
func TestEveryNameIsUsedAndListed(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`failpoint\.Here\(([^)]*)\)`)
	used := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == filepath.Join(root, "internal", "failpoint") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range call.FindAllStringSubmatch(string(source), -1) {
			name := strings.Trim(m[1], `"`)
			if !slices.Contains(Names(), name) || name == m[1] {
				t.Errorf("%s: failpoint %s is not listed (or not a literal)", path, m[1])
			}
			used[name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if !used[name] {
			t.Errorf("failpoint %s is listed and never used", name)
		}
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(Names()))); len(sorted) != len(Names()) {
		t.Error("a name is listed twice")
	}
}
