package tests

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestLinkingNamesTests: the tests and examples that docs/linking.md names are there.
func TestLinkingNamesTests(t *testing.T) {
	text, err := os.ReadFile("../docs/linking.md")
	if err != nil {
		t.Fatal(err)
	}
	funcs, err := exec.Command("grep", "-rhoE", "--include=*_test.go", "--exclude-dir=bin", `^func (Test|Example)[A-Za-z0-9_]*`, "..").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b(Test|Example)[A-Z][A-Za-z0-9]+\b`).FindAllString(string(text), -1)
	for _, name := range names {
		if !strings.Contains(string(funcs)+"\n", "func "+name+"\n") {
			t.Errorf("docs/linking.md names %s, which is nowhere", name)
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d names found", len(names))
	}
}
