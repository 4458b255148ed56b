package freezer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
)

const id = "0123abcd"

// fake makes a /proc and a cgroup that a thread of the test's runs as the kernel would: processes stop a little later.
func fake(t *testing.T, cgroup, state string, stops bool) (proc, dir string) {
	t.Helper()
	top := filepath.Join(t.TempDir(), "a \\ b")
	escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(top) // as the kernel does
	proc, dir = filepath.Join(top, "proc"), filepath.Join(top, "v1/parent/libpod-"+id)
	write := func(path, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Error(err)
		}
	}
	write(filepath.Join(proc, "7/cgroup"), cgroup)
	write(filepath.Join(proc, "self/mountinfo"), fmt.Sprintf("1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 /x %s/v2 rw - cgroup2 x rw\n3 1 0:2 / %[1]s/v1 rw shared:1 - cgroup2 x rw\n4 1 0:3 / %[1]s/v1 rw - cgroup x rw,cpu,freezer\n", escaped))
	write(filepath.Join(dir, "freezer.state"), state)
	write(filepath.Join(dir, "cgroup.freeze"), state)
	write(filepath.Join(dir, "cgroup.events"), "populated 1\nfrozen 0\n")
	if stops {
		done := make(chan struct{})
		timer := time.AfterFunc(20*time.Millisecond, func() {
			defer close(done)
			write(filepath.Join(dir, "cgroup.events"), "populated 1\nfrozen 1\n")
		})
		t.Cleanup(func() {
			if !timer.Stop() {
				<-done // else it writes into a directory that is being removed
			}
		})
	}
	return proc, dir
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFreezeAndThaw(t *testing.T) {
	for _, c := range []struct{ name, cgroup, before, file, during, after string }{
		{"v1", "6:cpu,freezer:/parent/libpod-" + id + "/sub\n0::/\n", "THAWED", "freezer.state", "FROZEN", "THAWED"},
		{"v1 frozen before", "6:freezer:/parent/libpod-" + id + "\n", "FROZEN", "freezer.state", "FROZEN", "FROZEN"},
		{"v2", "6:cpu:/parent/libpod-" + id + "\n0::/parent/libpod-" + id + "/init.scope\n", "0", "cgroup.freeze", "1", "0"},
		{"v2 frozen before", "0::/parent/libpod-" + id + "\n", "1", "cgroup.freeze", "1", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proc, dir := fake(t, c.cgroup, c.before, true)
			thaw, err := freeze(t.Context(), proc, 7, id)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, dir, c.file); got != c.during {
				t.Errorf("frozen it is %q", got)
			}
			for range 2 {
				if err := thaw(); err != nil {
					t.Error(err)
				}
				if got := read(t, dir, c.file)[:len(c.after)]; got != c.after {
					t.Errorf("afterwards it is %q", got)
				}
			}
		})
	}
}

// What cannot be frozen is an error, and is not touched; who gives up waiting thaws.
func TestNotFrozen(t *testing.T) {
	for name, cgroup := range map[string]string{
		"root":         "6:freezer:/\n0::/\n",
		"another's":    "6:freezer:/user.slice\n0::/user.slice\n",
		"seen outside": "0::/../libpod-" + id + "\n",
		"no such":      "6:freezer:/gone/libpod-" + id + "\n",
		"nonsense":     "\n:\n::::\n",
	} {
		proc, dir := fake(t, cgroup, "THAWED", true)
		if _, err := freeze(t.Context(), proc, 7, id); err == nil || read(t, dir, "freezer.state") != "THAWED" {
			t.Errorf("%s: %v", name, err)
		}
	}
	proc, _ := fake(t, "", "", true)
	if _, err := freeze(t.Context(), proc, 8, id); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Errorf("no such process: %v", err)
	}
	proc, dir := fake(t, "0::/parent/libpod-"+id+"\n", "0", false)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := freeze(ctx, proc, 7, id); !errors.Is(err, context.DeadlineExceeded) || read(t, dir, "cgroup.freeze") != "0" {
		t.Errorf("processes that do not stop: %v, left %q", err, read(t, dir, "cgroup.freeze"))
	}
}
