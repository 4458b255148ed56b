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
)

// patience is how long a command may take to end after a signal, with some room for a busy machine.
const patience = 2*time.Second + 500*time.Millisecond

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
		for j := range 100 {
			check(t, os.WriteFile(filepath.Join(dir, strings.Repeat("f", j+1)), []byte(strings.Repeat("text ", j+i)), 0o644))
		}
	}
	l.must(t, "add", "c1", "many", "/srv/many")
	before := l.snapshot()
	layout := func() bool { _, err := os.Stat(filepath.Join(l.work, "dest/layout")); return err == nil }
	soon := func() bool { time.Sleep(200 * time.Millisecond); return true }
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
		{"import - new:1", soon, syscall.SIGINT, 130}, // from a stream that says nothing and does not end
	} {
		cmd := exec.Command(binary, strings.Fields(c.line)...)
		in, hold, err := os.Pipe()
		check(t, err)
		cmd.Stdin = in
		r, took := l.interrupt(t, cmd, c.ready, c.signal)
		check(t, errors.Join(in.Close(), hold.Close()))
		if err := refused(r, c.code, "interrupted"); err != nil {
			t.Errorf("%s: %v", c.line, err)
		}
		if took > patience {
			t.Errorf("%s: ended after %v", c.line, took)
		}
		if d := before.differs(l.snapshot()); d != "" {
			t.Errorf("%s changed:\n%s", c.line, d)
		}
	}
	l.must(t, "check")
	l.must(t, "commit", "c1", "new:1")
}

// A second signal ends the program at once, whatever it waits for.
func TestSecondSignal(t *testing.T) {
	l := fixture(t)
	r, w, err := os.Pipe()
	check(t, err)
	defer w.Close()
	cmd := exec.Command(binary, "import", "-", "new:1")
	cmd.Stdin = r
	res, took := l.interrupt(t, cmd, func() bool { time.Sleep(200 * time.Millisecond); return true }, syscall.SIGTERM, syscall.SIGTERM)
	if res.code != 143 || took > time.Second {
		t.Errorf("exit %d after %v", res.code, took)
	}
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
