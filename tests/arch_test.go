// Package tests holds the rules of the house that no single package can hold: who may import whom, how large the whole is.
package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kimg/kimg"

// pkg is what the tests need to know of one package, from go list.
type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
	CgoFiles   []string
	Module     *struct{ Path string }
}

// row says what one package may import.
type row struct {
	who  string
	what []string
}

// mayImport is the import table of ARCHITECTURE.md: for each package, or each tree of packages (a name that ends in "/"),
// which of ours it may import. The first row that matches holds.
var mayImport = []row{
	{"", nil},
	{"internal/", []string{"", "internal/"}},
	{"convert/docker", []string{"", "internal/strict"}},
	{"convert/image", []string{"", "internal/", "convert", "convert/docker", "store", "store/archive", "store/layout", "store/transfer", "layerdiff/"}},
	{"convert/migrate", []string{"", "internal/", "convert", "convert/docker", "convert/image", "store", "store/archive", "store/layout", "store/transfer", "layerdiff/"}},
	{"convert", []string{"", "internal/strict", "convert/docker"}},
	{"copydata", []string{"", "internal/strict", "convert", "convert/docker"}},
	{"copydata/edit", []string{"", "internal/strict", "convert/docker", "copydata"}},
	{"layerdiff/", []string{"", "internal/", "layerdiff/"}},
	{"store/", []string{"", "internal/", "convert", "convert/docker", "copydata", "layerdiff/", "store/"}},
	{"commit", []string{"", "internal/", "convert", "convert/docker", "copydata", "layerdiff/", "store/"}},
	{"cmd/", []string{"", "internal/", "convert/", "copydata/", "layerdiff/", "store/", "commit", "cmd/"}},
	{"docs/", []string{"", "convert/", "copydata/", "layerdiff/", "store/", "commit"}}, // examples: of this module in make podman-module only
	{"tests/", []string{"", "internal/", "convert/", "copydata/", "layerdiff/", "store/", "commit", "tests/"}},
}

// TestImportTable holds every direct import of ours against the table.
func TestImportTable(t *testing.T) {
	for _, p := range ours(t) {
		self := rel(p.ImportPath)
		i := slices.IndexFunc(mayImport, func(r row) bool { return within(self, r.who) })
		if i < 0 {
			t.Errorf("package %s is not in the import table", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !isOurs(imp) {
				continue
			}
			ok := slices.ContainsFunc(mayImport[i].what, func(w string) bool { return within(rel(imp), w) })
			if !ok {
				t.Errorf("%s may not import %s", p.ImportPath, imp)
			}
		}
	}
}

// forTests are the packages beside tests/ that only tests link. store/storetest is for those of other programs too: they run the
// conformance table with a storage.Store of their own.
var forTests = []string{"internal/testenv", "internal/testimage", "store/storetest"}

// TestReach holds the rules about everything a package pulls in.
func TestReach(t *testing.T) {
	const userns = module + "/store/userns"
	for _, p := range ours(t) {
		self := rel(p.ImportPath)
		cli := within(self, "cmd/") || within(self, "tests/") || within(self, "docs/")
		bounded := self == "internal/strict"
		testing := self == "internal/testimage"
		for _, dep := range p.Deps {
			switch {
			case !cli && strings.HasPrefix(dep, "github.com/spf13/"):
				t.Errorf("%s reaches %s: the command line framework is for cmd/kimg", p.ImportPath, dep)
			case !cli && dep == userns && p.ImportPath != userns:
				t.Errorf("%s reaches %s, which only cmd/kimg may", p.ImportPath, dep)
			case !cli && strings.HasPrefix(dep, "github.com/vbauerster/") && slices.Contains(p.Imports, dep):
				t.Errorf("%s imports %s: bars are for cmd/kimg", p.ImportPath, dep)
			case bounded && isOurs(dep) && dep != module:
				t.Errorf("%s reaches %s", p.ImportPath, dep)
			case testing && isOurs(dep):
				t.Errorf("%s reaches %s: test data must not come from the code it tests", p.ImportPath, dep)
			case !within(self, "tests/") && !within(self, "docs/") && dep == "github.com/containers/image/v5/copy":
				t.Errorf("%s reaches %s, and with it gRPC: every command would start a fifth later", p.ImportPath, dep)
			case !within(self, "tests/") && dep == "testing" && !slices.Contains(forTests, self):
				t.Errorf("%s reaches package testing", p.ImportPath)
			}
		}
	}
}

// TestPure holds what is only bytes, on every system it is for (make cross builds it there): it must do without the
// container libraries.
func TestPure(t *testing.T) {
	for _, os := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			cmd := exec.Command("go", "list", "-deps", "./convert", "./convert/docker", "./copydata/...")
			cmd.Dir, cmd.Env = "..", append(cmd.Environ(), "GOOS="+os, "GOARCH="+arch)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), module+"/copydata\n") {
				t.Fatalf("%s/%s: %v\n%s", os, arch, err, out)
			}
			for dep := range strings.Lines(string(out)) {
				if strings.HasPrefix(dep, "github.com/containers/") || strings.HasPrefix(dep, "go.podman.io/") {
					t.Errorf("%s/%s: reaches %s", os, arch, dep)
				}
			}
		}
	}
}

// TestNoCgo looks for cgo in our own packages; the binary is checked by make build.
func TestNoCgo(t *testing.T) {
	for _, p := range ours(t) {
		if len(p.CgoFiles) > 0 || slices.Contains(p.Imports, "C") {
			t.Errorf("%s uses cgo: %v", p.ImportPath, p.CgoFiles)
		}
	}
}

// TestPackageComments wants a sentence about every package.
func TestPackageComments(t *testing.T) {
	for _, p := range ours(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// ceilings are the lines of code each part may have. They go down when a part is made simpler; one goes up only with a
// reason in ARCHITECTURE.md.
var ceilings = map[string]int{
	".":                200,
	"convert":          3550,
	"convert/image":    4640,
	"copydata":         1400,
	"copydata/edit":    1050,
	"layerdiff":        3390,
	"layerdiff/recipe": 170,
	"layerdiff/rootfs": 735,
	"layerdiff/untar":  1090,
	"store":            7370,
	"store/storetest":  420,
	"store/layout":     1028,
	"store/archive":    1693,
	"store/transfer":   910,
	"store/userns":     1800,
	"commit":           2535,
	"cmd":              6300,
	"internal":         3910,
}

// TestSize counts the lines of code that are not tests: no comments, no blank lines. Files of every platform count.
func TestSize(t *testing.T) {
	sizes := map[string]int{}
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"../tests", "../internal/testimage", "../internal/testenv", "../.git", "../bin", "../docs"}, path) {
			return filepath.SkipDir // docs holds examples, bin what was made of all this
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				sizes[part(filepath.ToSlash(path))]++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, n := range sizes {
		total += n
		if n > ceilings[name] {
			t.Errorf("%s has %d lines of code, its ceiling is %d", name, n, ceilings[name])
		}
		t.Logf("%s: %d of %d", name, n, ceilings[name])
	}
	t.Logf("%d lines of code in all", total)
}

// part is the part of the house a file belongs to.
func part(path string) string {
	dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "..")
	dir = strings.TrimPrefix(dir, "/")
	if _, ok := ceilings[dir]; ok {
		return dir
	}
	top, _, _ := strings.Cut(dir, "/")
	if top == "" {
		return "."
	}
	return top
}

// ours lists every package of the module.
func ours(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Doc,Imports,Deps,GoFiles,CgoFiles,Module", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if isOurs(p.ImportPath) {
			all = append(all, p)
		}
	}
	return all
}

func isOurs(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func rel(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

// within reports whether a package is the one named, or lies in the tree named by a trailing slash (its root included).
func within(p, name string) bool {
	if tree, ok := strings.CutSuffix(name, "/"); ok {
		return p == tree || strings.HasPrefix(p, name)
	}
	return p == name
}
