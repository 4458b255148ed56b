package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
)

// inProcess runs a command line that opens no store.
func inProcess(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(args, streams{in: os.Stdin, out: &o, err: &e})
	return code, o.String(), e.String()
}

func TestUsageIsRefusedBeforeAnythingIsOpened(t *testing.T) {
	for _, line := range []string{"nosuch", "version x", "from", "commit", "commit --timestamp x c", "--jobs x version", "images --format {{"} {
		code, out, errs := inProcess(strings.Fields(line)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errs, "kimg: invalid: ") || strings.Count(errs, "\n") != 1 {
			t.Errorf("kimg %s: exit %d, %q, %q", line, code, out, errs)
		}
	}
}

// B9: an ordinary user's logins are looked for where podman keeps them, also when no variable says where that is: after su, and in cron.
// Root's are where the library looks.
func TestRuntimeDir(t *testing.T) {
	dir := fmt.Sprintf("/run/user/%d", os.Geteuid())
	if _, err := os.Stat(dir); err != nil || testenv.IsRoot() {
		dir = ""
	}
	for have, want := range map[string]string{"": dir, "/elsewhere": "/elsewhere"} {
		t.Setenv("XDG_RUNTIME_DIR", have)
		(&app{}).systemContext()
		if got := os.Getenv("XDG_RUNTIME_DIR"); got != want {
			t.Errorf("%q: %q and not %q", have, got, want)
		}
	}
}

// Every command explains itself, with an example, and its help fits a terminal.
func TestHelp(t *testing.T) {
	a := &app{}
	all := newRoot(a, nil).Commands()
	for _, c := range all {
		all = append(all, c.Commands()...)
	}
	for _, c := range all {
		if c.Name() == "completion" || c.Name() == "help" {
			continue
		}
		if c.Short == "" || c.Example == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 130 {
				t.Errorf("%s: a line of %d characters: %s", c.Name(), n, line)
			}
		}
	}
}

// TestCommands: what a command line names is made, all else is for help and completion only.
func TestCommands(t *testing.T) {
	all := commands(nil)
	for _, c := range all {
		cmd := c.make(&app{})
		if names := strings.Join(append([]string{cmd.Name()}, cmd.Aliases...), " "); names != c.names {
			t.Errorf("%q is in the table as %q", names, c.names)
		}
	}
	for line, want := range map[string]int{"": len(all), "nosuch": len(all), "--root images ps": 2, "help rm": 1, "__complete rm": len(all), "unmount x": 1} {
		if got := commands(strings.Fields(line)); len(got) != want {
			t.Errorf("%q: %d commands, want %d", line, len(got), want)
		}
	}
	if _, out, _ := inProcess("__complete", "rm"); !strings.Contains(out, "rmi") {
		t.Errorf("completion: %q", out)
	}
}

func TestReport(t *testing.T) {
	hostile := "a\x1b[31m\nb" + strings.Repeat("x", 5000)
	for _, json := range []bool{false, true} {
		var e bytes.Buffer
		a := &app{streams: streams{err: &e}, flags: globals{json: json}}
		if code := a.report("op", kimg.Errorf(kimg.ErrNotFound, hostile, "gone")); code != exitFail {
			t.Errorf("exit %d", code)
		}
		line := e.String()
		if strings.Count(line, "\n") != 1 || strings.Contains(line, "\x1b") || len(line) > 8000 {
			t.Errorf("%q", line)
		}
		if !strings.Contains(line, "notfound") {
			t.Errorf("no class: %q", line)
		}
	}
	a := &app{streams: streams{err: &bytes.Buffer{}}}
	for err, want := range map[error]int{nil: 0, status(0): 0, status(99): 99, joined(status(7), nil): 7, usagef("x", "y"): 2, errors.New("x"): 1} {
		if got := a.report("op", err); got != want {
			t.Errorf("report(%v) = %d, want %d", err, got, want)
		}
	}
}

// A panic is one line of class internal, not a stack.
func TestPanic(t *testing.T) {
	var e bytes.Buffer
	code := run([]string{"version"}, streams{in: os.Stdin, out: panics{}, err: &e})
	if got := e.String(); code != exitFail || !strings.HasPrefix(got, "kimg: internal: ") || strings.Count(got, "\n") != 1 {
		t.Errorf("exit %d, %q", code, got)
	}
}

type panics struct{}

func (panics) Write([]byte) (int, error) { panic("no\nwriting") }

// After an interrupt no program is started: its end would not be waited for, and what is mounted for it would stay.
func TestInterruptedBeforeTheProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	a := &app{stdout: bufio.NewWriter(io.Discard), sig: &signals{}}
	a.sig.first.Store(int32(syscall.SIGTERM))
	if err := a.runChild(exec.Command("touch", file)); kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("it ran: %v", err)
	}
	if err := a.sig.mute(); kimg.ClassOf(err) != kimg.ErrInterrupted { // nor kimg itself in a namespace
		t.Errorf("%v", err)
	}
}

func TestWantsJSON(t *testing.T) {
	for line, want := range map[string]bool{"--json x": true, "x --json": true, "x -- --json": false, "x": false, "x --json=true": true} {
		if got := wantsJSON(strings.Fields(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string][2]string{
		"docker.io/library/a:1": {"docker.io/library/a", "1"}, "localhost:5000/a": {"localhost:5000/a", none},
		"localhost:5000/a:2": {"localhost:5000/a", "2"}, "a@sha256:12": {"a", none}, "a:1@sha256:12": {"a", "1"},
	} {
		if repository, tag := splitName(name); repository != want[0] || tag != want[1] {
			t.Errorf("%s: %s %s", name, repository, tag)
		}
	}
}

func TestTexts(t *testing.T) {
	for n, want := range map[int64]string{-1: "unknown", 0: "0 B", 999: "999 B", 1000: "1 kB", 1234567: "1.23 MB", 5e12: "5 TB", 5e15: "5e+03 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	if got := since(time.Time{}); got != "unknown" {
		t.Error(got)
	}
	synctest.Test(t, func(t *testing.T) { // where time stands still
		now := time.Now()
		for d, want := range map[time.Duration]string{0: "now", time.Second: "1 second ago", 2 * time.Hour: "2 hours ago", 800 * 24 * time.Hour: "2 years ago", now.Sub(time.Unix(0, 0)): strconv.Itoa(int(now.Unix()/86400/365)) + " years ago"} {
			if got := since(now.Add(-d)); got != want {
				t.Errorf("%v: %s", d, got)
			}
		}
	})
}

func TestMoment(t *testing.T) {
	for _, s := range []int64{-1, lastSecond + 1, 1 << 62} {
		if _, err := moment("x", s); !isUsage(err) {
			t.Errorf("%d: %v", s, err)
		}
	}
	if m, err := moment("x", 0); err != nil || m.Unix() != 0 {
		t.Error(m, err)
	}
}

// A result file is complete or absent, and never replaces a file that has to be new.
func TestResultFile(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/f"
	for i, want := range []string{"one", "two"} {
		f, err := newResultFile(path, 4096, mayReplace)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(path); string(data) != want {
			t.Errorf("%d: %q", i, data)
		}
	}
	if _, err := newResultFile(path, 0, mustBeNew); kimg.ClassOf(err) != kimg.ErrExists {
		t.Errorf("%v", err)
	}
	f, err := newResultFile(dir+"/g", 0, mustBeNew)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/g", []byte("faster"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.write([]byte("x")); kimg.ClassOf(err) != kimg.ErrExists {
		t.Errorf("%v", err)
	}
	f, _ = newResultFile(dir+"/h", 0, mayReplace)
	f.abort()
	f.abort()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v %v", entries, err)
	}
}

// Every member that is printed is in the documentation.
func TestJSONIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("json:\"([^\",]+)|map\\[string\\]any\\{\"([^\"]+)").FindAllSubmatch(source, -1) {
			if member := string(m[1]) + string(m[2]); !bytes.Contains(doc, []byte("`"+member+"`")) && !bytes.Contains(doc, []byte(`"`+member+`"`)) {
				t.Errorf("%s: member %s is not in docs/json.md", file, member)
			}
		}
	}
}

func isUsage(err error) bool {
	var wrong usageError
	return errors.As(err, &wrong)
}
