package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/kimg/kimg"
)

// schema is the version of the JSON shapes. Members are added within a version; removing one or changing its meaning
// makes a new version.
const schema = 1

// maxText bounds one piece of text in human output.
const maxText = 64 << 10

// escape makes text from a store or an image safe for a terminal.
func escape(text string) string { return kimg.Escape(text, maxText) }

// printJSON prints one result, a struct or a map with members.
func (a *app) printJSON(v any) error {
	data, err := versioned(v)
	if err != nil {
		return kimg.Wrap("standard output", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return kimg.Wrap("standard output", err)
	}
	_, _ = b.WriteTo(a.stdout) // the buffer below keeps the error
	return nil
}

// versioned returns a struct or a map with members as a JSON object that begins with the number of the schema.
func versioned(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"schema":%d,%s`, schema, b.Bytes()[1:]), nil
}

// table prints rows of columns under a heading. Cells are escaped.
func (a *app) table(heading []string, rows [][]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		escaped := make([]string, len(cells))
		for i, cell := range cells {
			escaped[i] = escape(cell)
		}
		_, _ = io.WriteString(w, strings.TrimRight(strings.Join(escaped, "\t"), "\t")+"\n")
	}
	line(heading)
	for _, row := range rows {
		line(row)
	}
	_ = w.Flush() // the buffer below keeps the error
}

// parseTemplate parses the value of --format: a Go template that is applied to each item of a list. \t and \n may be
// written as escapes; the function json prints a value as JSON.
func parseTemplate(format string) (*template.Template, error) {
	text := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	t, err := template.New("format").Option("missingkey=error").Funcs(template.FuncMap{
		"json":  toJSON,
		"join":  strings.Join,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
	}).Parse(text)
	if err != nil {
		return nil, usagef("--format", "%w", err)
	}
	return t, nil
}

// templateLine prints one item of a list through a template, on a line of its own. The item's text members are escaped
// by whoever made it.
func (a *app) templateLine(t *template.Template, item any) error {
	if err := t.Execute(a.stdout, item); err != nil {
		return usagef("--format", "%w", err)
	}
	a.printf("\n")
	return nil
}

func toJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

// printTemplate prints the rows of a list through a template.
func printTemplate[T any](a *app, format string, rows []T) error {
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := a.templateLine(t, row); err != nil {
			return err
		}
	}
	return nil
}

// printNames prints the objects a command has dealt with, one a line. member names them in JSON.
func (a *app) printNames(member string, names []string) error {
	if a.flags.json {
		return a.printJSON(map[string]any{member: names})
	}
	for _, name := range names {
		a.println(name)
	}
	return nil
}

// orNone is what people are shown for an empty cell.
func orNone(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

// boolText is true or false, as filters write it.
func boolText(b bool) string { return strconv.FormatBool(b) }

// orEmpty makes a list of nothing print as [] in JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
