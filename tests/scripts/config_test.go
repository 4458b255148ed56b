package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryConfigFlagIsInAScript reads the flags from the help.
func TestEveryConfigFlagIsInAScript(t *testing.T) {
	l := newLab(t)
	_, flags, _ := strings.Cut(l.must(t, "config", "--help"), "\nFlags:\n")
	flags, _, _ = strings.Cut(flags, "\n\n")
	var scripts strings.Builder
	paths, err := filepath.Glob("config*.txtar")
	check(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		check(t, err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "exec kimg config ") {
				scripts.WriteString(strings.ReplaceAll(line, "\n", " "))
			}
		}
	}
	all := regexp.MustCompile(`--[a-z-]+`).FindAllString(regexp.MustCompile(`(?m)^ +(-[a-z], )?(--[a-z-]+).*$`).ReplaceAllString(flags, "$2"), -1)
	for _, flag := range all {
		if flag != "--help" && !strings.Contains(scripts.String(), flag+" ") {
			t.Errorf("%s is in no script that is carried out", flag)
		}
	}
	if len(all) < 38 {
		t.Errorf("only %d flags found: %s", len(all), all)
	}
}
