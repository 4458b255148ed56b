package tests

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestAPI compares what the public packages export with docs/api.txt, so that nothing is exported, changed or taken away
// unawares.
func TestAPI(t *testing.T) {
	cmd := exec.Command("go", "run", "./api", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("../docs/api.txt")
	if err != nil {
		t.Fatal(err)
	}
	have, want := strings.Split(string(out), "\n"), strings.Split(string(kept), "\n")
	for _, l := range want {
		if !slices.Contains(have, l) {
			t.Errorf("gone: %s", l)
		}
	}
	for _, l := range have {
		if !slices.Contains(want, l) {
			t.Errorf("new: %s", l)
		}
	}
	if t.Failed() {
		t.Log("if that is meant: run make docs, and say in CHANGELOG.md what users must change")
	}
}
