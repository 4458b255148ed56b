package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// patience is how long a command may take to end after a signal.
const patience = 2 * time.Second

// interrupt starts a command, waits until ready says so, sends signals and returns the run.
func (l *lab) interrupt(t *testing.T, cmd *exec.Cmd, ready func() bool, signals ...os.Signal) (result, time.Duration) {
	t.Helper()
	var out, errs strings.Builder
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = l.env, l.work, &out, &errs
	check(t, cmd.Start())
	for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatalf("never got to work: %s", errs.String())
		}
	}
	start := time.Now()
	defer time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
	for _, s := range signals {
		check(t, cmd.Process.Signal(s))
		time.Sleep(20 * time.Millisecond)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out: out.String(), err: errs.String(), code: cmd.ProcessState.ExitCode()}, time.Since(start)
}

// endless gives a command a standard input that begins and does not go on, and tells whether it has read that.
func endless(t *testing.T, cmd *exec.Cmd) (read func() bool) {
	t.Helper()
	r, w, err := os.Pipe()
	check(t, err)
	t.Cleanup(func() { check(t, errors.Join(r.Close(), w.Close())) })
	_, err = w.WriteString("a beginning")
	check(t, err)
	cmd.Stdin = r
	return func() bool {
		left, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		return err == nil && left == 0
	}
}

// staging reports whether a layer is being written.
func (l *lab) staging() bool {
	found, _ := filepath.Glob(filepath.Join(l.root(), "overlay/staging/*/*"))
	return len(found) > 0
}

// An interrupted command ends in time, with its code and its line, and leaves the store and its temporary files as they were.
func TestInterrupt(t *testing.T) {
	l := fixture(t)
	for i := range 40 {
		dir := filepath.Join(l.work, "many", "d"+strings.Repeat("x", i))
		check(t, os.MkdirAll(dir, 0o755))
		for j := range 25 {
			check(t, os.WriteFile(filepath.Join(dir, strings.Repeat("f", j+1)), []byte(strings.Repeat("text ", j+i)), 0o644))
		}
	}
	l.must(t, "add", "c1", "many", "/srv/many")
	// Last comes a hole that takes seconds to hash: nothing ends before the signal, however late that is.
	check(t, os.WriteFile(filepath.Join(l.work, "many/hole"), nil, 0o644))
	check(t, os.Truncate(filepath.Join(l.work, "many/hole"), 8<<30))
	l.must(t, "mount", "c1", "--", "sh", "-c", `truncate -s 8G "$KIMG_ROOT/srv/many/hole"`)
	before := l.snapshot()
	layout := func() bool { _, err := os.Stat(filepath.Join(l.work, "dest/layout")); return err == nil }
	for _, c := range []struct {
		line   string
		ready  func() bool
		signal syscall.Signal
		code   int
	}{
		{"commit c1 new:1", l.staging, syscall.SIGINT, 130},
		{"commit --rm c1 new:1", l.staging, syscall.SIGTERM, 143},
		{"commit c1 oci:dest/layout:1", layout, syscall.SIGINT, 130},
		{"commit --compression gzip c1 oci:dest/layout:1", layout, syscall.SIGTERM, 143},
		{"import many new:1", l.staging, syscall.SIGTERM, 143},
		{"import - new:1", nil, syscall.SIGINT, 130}, // from a stream that says nothing and does not end
	} {
		testenv.Soon(t, c.line+" ended", patience, func() time.Duration {
			cmd := exec.Command(binary, strings.Fields(c.line)...)
			ready := endless(t, cmd)
			if c.ready != nil {
				ready = c.ready
			}
			r, took := l.interrupt(t, cmd, ready, c.signal)
			if err := refused(r, c.code, "interrupted"); err != nil {
				t.Errorf("%s: %v", c.line, err)
			}
			if d := before.differs(l.snapshot()); d != "" {
				t.Errorf("%s changed:\n%s", c.line, d)
			}
			return took
		})
	}
	l.must(t, "check")
	l.must(t, "mount", "c1", "--", "sh", "-c", `rm "$KIMG_ROOT/srv/many/hole"`)
	l.must(t, "commit", "c1", "new:1")
}

// A second signal ends the program at once, whatever it waits for.
func TestSecondSignal(t *testing.T) {
	l := fixture(t)
	testenv.Soon(t, "ended", time.Second, func() time.Duration {
		cmd := exec.Command(binary, "import", "-", "new:1")
		r, took := l.interrupt(t, cmd, endless(t, cmd), syscall.SIGTERM, syscall.SIGTERM)
		if r.code != 143 {
			t.Errorf("exit %d", r.code)
		}
		return took
	})
	l.must(t, "images")
	l.must(t, "check")
}

// A program that kimg runs gets the signals, decides, and the container is unmounted.
func TestSignalsReachTheCommand(t *testing.T) {
	l := fixture(t)
	flag := filepath.Join(l.work, "running")
	ready := func() bool { _, err := os.Stat(flag); return err == nil }
	for _, line := range []string{"mount c1 --", "unshare --mount ROOT=c1"} {
		_ = os.Remove(flag)
		args := append(strings.Fields(line), "sh", "-c", `trap 'echo caught; exit 9' TERM; touch running; while :; do sleep 0.02; done`)
		r, _ := l.interrupt(t, exec.Command(binary, args...), ready, syscall.SIGTERM)
		if r.code != 9 || r.out != "caught\n" || r.err != "" {
			t.Errorf("%s: exit %d, %q, %q", line, r.code, r.out, r.err)
		}
		if out := l.must(t, "mount"); out != "" {
			t.Errorf("%s: still mounted: %s", line, out)
		}
	}
}

// What a killed kimg add left is not the container's content, and goes with the next command.
func TestKilledAdd(t *testing.T) {
	l := fixture(t)
	l.must(t, "mount", "c1", "--", "sh", "-c", `mkdir "$KIMG_ROOT/.kimg-add-DEAD" && echo x >"$KIMG_ROOT/.kimg-add-DEAD/0"`)
	if out := l.must(t, "diff", "c1"); strings.Contains(out, "kimg-add") {
		t.Errorf("diff: %s", out)
	}
	if out := l.must(t, "mount"); out != "" {
		t.Errorf("still mounted: %s", out)
	}
}
