package store_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startPaused starts an operation that stops at a failpoint, and returns when it has. Most of a second later it goes on.
func (ts *testStore) startPaused(t *testing.T, op, point string) (wait func() error) {
	t.Helper()
	bin, err := failpointBinary()
	must(t, err)
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), envChild+"="+op, envRoot+"="+filepath.Dir(ts.root), "KIMG_FAILPOINT="+point+"=stop")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	var is unix.Siginfo
	must(t, unix.Waitid(unix.P_PID, cmd.Process.Pid, &is, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil))
	if is.Code != stopped {
		t.Fatalf("it did not get there: %v\n%s", cmd.Wait(), out.String())
	}
	time.AfterFunc(800*time.Millisecond, func() {
		for cmd.Process.Signal(unix.SIGCONT) == nil { // it may get there again
			time.Sleep(10 * time.Millisecond)
		}
	})
	return func() error {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s", out.String())
			return err
		}
		return nil
	}
}

const stopped = 5 // CLD_STOPPED of waitid(2)

// TestLivingChangesAreLeftAlone opens the store while another process is in the middle of a change.
func TestLivingChangesAreLeftAlone(t *testing.T) {
	for _, point := range []string{"layer.stage.end", "change.intent", "layer.apply.end", "image.put.begin"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			ts := prepare(t)
			wait := ts.startPaused(t, "import", point)
			ts.open(t)
			if problems, err := ts.Check(t.Context()); err != nil {
				t.Errorf("%+v, %v", problems, err)
			}
			// The same layers, at the same time: the other's are neither taken away nor waited for to the end.
			must(t, importImage(t.Context(), ts.open(t), "localhost/mine:latest", "one", "two", "three"))
			must(t, wait())
			for _, name := range []string{"mine", "base"} {
				img, err := ts.Resolve(t.Context(), name, nil)
				must(t, err)
				if layers, err := img.Layers(t.Context()); err != nil || len(layers) != 3 {
					t.Errorf("%s: %v, %v", name, layers, err)
				}
			}
			checkNothingStaged(t, ts)
		})
	}
}

// TestNameMovedSince: a commit was killed after its container was removed. Before anybody used kimg again, one of its
// names was given to another image: that was later and stays.
func TestNameMovedSince(t *testing.T) {
	ts := prepare(t)
	if _, killed := ts.run(t, "commit links", "container.rm.end=kill"); !killed {
		t.Fatal("not killed")
	}
	unused, err := ts.Resolve(t.Context(), "unused", nil)
	must(t, err)
	must(t, ts.Storage().AddNames(unused.ID, []string{"localhost/base:latest"})) // as podman tag does
	ts.open(t)
	if img, err := ts.Resolve(t.Context(), "base", nil); err != nil || img.ID != unused.ID {
		t.Errorf("%+v, %v", img, err)
	}
	if img, err := ts.Resolve(t.Context(), "committed", nil); err != nil || img.ID == unused.ID {
		t.Errorf("%+v, %v", img, err)
	}
	checkNothingStaged(t, ts)
}

// TestLostLayer: the layer of a half-done change is gone, nobody can complete it. That is said, and blocks nothing.
func TestLostLayer(t *testing.T) {
	ts := prepare(t)
	if _, killed := ts.run(t, "commit links", "container.rm.end=kill"); !killed {
		t.Fatal("not killed")
	}
	files, err := filepath.Glob(filepath.Join(ts.root, "kimg", "intent-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	data, err := os.ReadFile(files[0])
	must(t, err)
	var in struct {
		Steps []struct{ Layer string }
	}
	must(t, json.Unmarshal(data, &in))
	must(t, ts.Storage().DeleteLayer(in.Steps[0].Layer))
	s := ts.open(t)
	problems, err := s.Check(t.Context())
	if err != nil || len(problems) != 1 || problems[0].Kind != "intent" || !strings.Contains(problems[0].Text, in.Steps[0].Layer[:12]) {
		t.Errorf("%+v, %v", problems, err)
	}
	if err, _ := ts.run(t, "from", ""); err == nil {
		return
	}
	must(t, addLayer(t.Context(), s, "", "more"))
}

func TestRubbishBesideIntents(t *testing.T) {
	ts := prepare(t)
	dir := filepath.Join(ts.root, "kimg")
	write(t, filepath.Join(dir, "intent-rubbish.json"), "{")
	write(t, filepath.Join(dir, ".new-old"), "")
	write(t, filepath.Join(dir, "somebody's"), "")
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, ".new-old"), old, old))
	must(t, os.Symlink("/etc/hostname", filepath.Join(dir, "intent-link.json")))
	stale := filepath.Join(ts.root, "overlay", "staging", "stale")
	fresh := filepath.Join(ts.root, "overlay", "staging", "fresh")
	for _, d := range []string{stale, fresh} {
		must(t, os.MkdirAll(filepath.Join(d, "dir"), 0o700))
	}
	old = time.Now().Add(-2 * time.Hour)
	must(t, os.Chtimes(stale, old, old))
	s := ts.open(t)
	if _, err := s.Images(t.Context()); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]bool{".new-old": false, "somebody's": true, "intent-rubbish.json": false, "failed-intent-rubbish.json": true} {
		if _, err := os.Lstat(filepath.Join(dir, path)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Lstat(stale); err == nil {
		t.Error("a staging directory of two hours ago is still there")
	}
	if _, err := os.Lstat(fresh); err != nil {
		t.Error("a staging directory somebody has just made is gone")
	}
	must(t, addLayer(t.Context(), s, "", "works"))
}
