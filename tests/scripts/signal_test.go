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
	for name, sig := range map[string]struct {
		signal syscall.Signal
		code   int
	}{"INT": {syscall.SIGINT, 130}, "TERM": {syscall.SIGTERM, 143}} {
		t.Run(name, func(t *testing.T) {
			l := fixture(t)
			tree := filepath.Join(l.work, "many")
			for i := range 40 {
				dir := filepath.Join(tree, "d"+strings.Repeat("x", i))
				check(t, os.MkdirAll(dir, 0o755))
				for j := range 100 {
					check(t, os.WriteFile(filepath.Join(dir, strings.Repeat("f", j+1)), []byte(strings.Repeat("text ", j+i)), 0o644))
				}
			}
			l.must(t, "add", "c1", "many", "/srv/many")
			before := l.snapshot()
			for _, line := range []string{"commit c1 new:1", "commit --rm c1 new:1", "commit c1 oci:dest/layout:1", "import many new:1", "import - new:1"} {
				cmd := exec.Command(binary, strings.Fields(line)...)
				ready := l.staging
				var hold *os.File
				switch {
				case strings.Contains(line, " - "):
					var r *os.File
					var err error
					r, hold, err = os.Pipe() // a stream that says nothing and does not end
					check(t, err)
					cmd.Stdin = r
					ready = func() bool { time.Sleep(200 * time.Millisecond); return true }
				case strings.Contains(line, "oci:"):
					ready = func() bool {
						_, err := os.Stat(filepath.Join(l.work, "dest/layout"))
						return err == nil
					}
				}
				r, took := l.interrupt(t, cmd, ready, sig.signal)
				if hold != nil {
					hold.Close()
				}
				if r.code == 0 {
					t.Errorf("%s: was faster than the signal", line)
					continue
				}
				if err := refused(r, sig.code, "interrupted"); err != nil {
					t.Errorf("%s: %v", line, err)
				}
				if took > patience {
					t.Errorf("%s: ended after %v", line, took)
				}
				if d := before.differs(l.snapshot()); d != "" {
					t.Errorf("%s changed:\n%s", line, d)
				}
			}
			l.must(t, "check")
			l.must(t, "commit", "c1", "new:1")
		})
	}
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
