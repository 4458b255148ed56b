// Command api prints what the public packages export, one line for each constant, variable, function, type, field and
// method, sorted. The types are the compiler's, so the lines say what a user's program is compiled against.
//
// usage: api DIR   any directory of the module
package main

import (
	"bytes"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	lines, err := list(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.Join(lines, "\n"))
}

func list(dir string) ([]string, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}\t{{with .Module}}{{if .Main}}{{.Path}}{{end}}{{end}}", "./...")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{} // import path to the file with the compiler's types
	var public [][2]string         // import path, and its name within the module
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		exports[f[0]] = f[1]
		if name := strings.TrimPrefix(strings.TrimPrefix(f[0], f[2]), "/"); f[2] != "" && isPublic(name) {
			public = append(public, [2]string{f[0], name})
		}
	}
	from := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		data, err := os.ReadFile(exports[path])
		return io.NopCloser(bytes.NewReader(data)), err
	})
	var lines []string
	for _, p := range public {
		pkg, err := from.Import(p[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p[0], err)
		}
		name := p[1]
		if name == "" {
			name = pkg.Name()
		}
		for _, l := range exported(pkg) {
			lines = append(lines, name+": "+l)
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// isPublic tells whether a package is for other modules.
func isPublic(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return !slices.Contains([]string{"cmd", "docs", "internal", "tests"}, top)
}

// exported lists what a package exports. Other packages are called by their last name, so that where they come from does
// not matter.
func exported(pkg *types.Package) (lines []string) {
	short := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return p.Name()
	}
	for _, name := range pkg.Scope().Names() {
		o := pkg.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		switch o := o.(type) {
		case *types.Const:
			lines = append(lines, fmt.Sprintf("const %s %s = %s", name, types.TypeString(o.Type(), short), o.Val().ExactString()))
		case *types.TypeName:
			lines = append(lines, typeLines(o, short)...)
		default:
			lines = append(lines, types.ObjectString(o, short))
		}
	}
	return lines
}

func typeLines(o *types.TypeName, short types.Qualifier) []string {
	if o.IsAlias() {
		return []string{types.ObjectString(o, short)}
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch u := o.Type().Underlying().(type) {
	case *types.Struct:
		add("type %s struct", o.Name())
		for i := range u.NumFields() {
			if f := u.Field(i); f.Exported() {
				field := strings.TrimPrefix(types.ObjectString(f, short), "field ")
				add("type %s struct: %s", o.Name(), strings.TrimSuffix(field+" "+u.Tag(i), " "))
			}
		}
	case *types.Interface:
		add("type %s interface", o.Name())
		for m := range u.Methods() {
			add("type %s interface: %s", o.Name(), strings.TrimPrefix(types.ObjectString(m, short), "func "))
		}
	default:
		add("type %s %s", o.Name(), types.TypeString(u, short))
	}
	if named, ok := o.Type().(*types.Named); ok {
		for m := range named.Methods() {
			if m.Exported() {
				add("%s", types.ObjectString(m, short))
			}
		}
	}
	return lines
}
