package tests

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExamples wants, of every public package, an example that is run and whose output is checked.
func TestExamples(t *testing.T) {
	for _, p := range ours(t) {
		if top, _, _ := strings.Cut(rel(p.ImportPath), "/"); slices.Contains([]string{"cmd", "docs", "internal", "tests"}, top) {
			continue
		}
		names, err := filepath.Glob(filepath.Join(p.Dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var files []*ast.File
		for _, name := range names {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		if !slices.ContainsFunc(doc.Examples(files...), func(e *doc.Example) bool { return e.Output != "" }) {
			t.Errorf("%s has no Example function with // Output:", p.ImportPath)
		}
	}
}
