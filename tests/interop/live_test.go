//go:build interop

package interop

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// rewriter is a program that rewrites files all the time, each with one byte repeated, in one call. It rests between rounds.
const rewriter = `package main

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

func main() {
	os.Mkdir("/data", 0o755)
	var files []*os.File
	for i := 0; i < 12; i++ {
		f, err := os.Create("/data/" + strconv.Itoa(i))
		if err != nil {
			panic(err)
		}
		files = append(files, f)
	}
	for c := byte(0); ; c++ {
		for i, f := range files {
			size := 60000
			if i >= 10 {
				size = 3000000
			}
			f.WriteAt(bytes.Repeat([]byte{c}, size), 0)
		}
		if c == 0 {
			os.Mkdir("/ready", 0o755)
		}
		time.Sleep(time.Duration(c%5) * 20 * time.Millisecond)
	}
}
`

// program builds a tree with one static program.
func program(t *testing.T, name, text string) (tree string) {
	t.Helper()
	dir := lab.TempDir(t)
	source, tree := filepath.Join(dir, "main.go"), filepath.Join(dir, "tree")
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(tree, name), source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return tree
}

// TestLiveContainers commits a container of podman's that rewrites its files. Without --pause every file is as it was at one
// moment, or is named; with it the commit always succeeds, and the container goes on as it was.
func TestLiveContainers(t *testing.T) {
	testenv.Root(t) // runc in a namespace needs more than these machines give
	testenv.Need(t, "podman", "runc", "go")
	s := lab.NewStore(t, "")
	s.Kimg("import", program(t, "rewriter", rewriter), "localhost/rewriter")
	s.Peer("podman", "--runtime", "runc", "run", "-d", "--name", "live", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "none", "localhost/rewriter", "/rewriter")
	t.Cleanup(func() { s.Peer("podman", "rm", "-f", "-t", "0", "live") })
	for until := time.Now().Add(time.Minute); !strings.Contains(s.Kimg("diff", "live"), "/ready"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the container never got ready")
		}
	}
	out := filepath.Join(lab.TempDir(t), "out")
	whole := map[string]int{}
	for i := range 8 {
		dest := []string{"dir:" + out, "localhost/live"}[i%2]
		r := s.Try("commit", "--force", "live", dest)
		if r.Code != 0 {
			// A destination outside the store is read for again; then it is the container that changed in between.
			if r.Code != 1 || !strings.Contains(r.Stderr, "/data/") && (i%2 == 1 || !strings.Contains(r.Stderr, "live: the container")) || !strings.Contains(r.Stderr, "changed while it was read") {
				t.Errorf("exit %d: %s", r.Code, r.Stderr)
			}
			if _, err := os.Stat(out); whole["dir:"+out] == 0 && !os.IsNotExist(err) {
				t.Errorf("it left something: %v", err)
			}
			if images := s.Kimg("images"); whole["localhost/live"] == 0 && strings.Contains(images, "live") {
				t.Errorf("it left an image: %s", images)
			}
			continue
		}
		whole[dest]++
		consistent(t, unpacked(t, s, dest))
	}
	t.Logf("without a pause, of 4 each: %v", whole)

	for range 5 {
		var made struct {
			Layer struct {
				LeftOut []struct{ Path, Reason string }
			}
		}
		if err := json.Unmarshal([]byte(s.Kimg("commit", "--json", "--pause", "live", "localhost/paused", "dir:"+out)), &made); err != nil {
			t.Fatal(err)
		}
		consistent(t, out)
		consistent(t, unpacked(t, s, "localhost/paused"))
		var left []string
		for _, skip := range made.Layer.LeftOut {
			left = append(left, skip.Path)
		}
		for _, path := range []string{"/dev", "/etc/hostname", "/etc/hosts", "/proc", "/run/.containerenv", "/sys"} {
			if !slices.Contains(left, path) {
				t.Errorf("the mount target %s is not among what is left out: %q", path, left)
			}
		}
	}
	if got := s.Peer("podman", "inspect", "-f", "{{.State.Status}}", "live"); got != "running" || !writes(t, s, time.Minute) {
		t.Errorf("afterwards it is %s", got)
	}
	s.Peer("podman", "--runtime", "runc", "pause", "live")
	s.Kimg("commit", "--pause", "live", "dir:"+out)
	for _, dest := range []string{"dir:" + out, "localhost/quiet"} { // without a writer nothing is torn, and nobody need say --pause
		s.Kimg("commit", "--force", "live", dest)
	}
	if writes(t, s, 400*time.Millisecond) {
		t.Error("what was paused before goes on")
	}
	s.Peer("podman", "--runtime", "runc", "unpause", "live")
	if r := s.Try("commit", "--pause", "live", "nosuch://x"); r.Code == 0 || !writes(t, s, time.Minute) {
		t.Errorf("a failed commit, exit %d, leaves it frozen", r.Code)
	}
	if r := s.Try("commit", "--pause", "live", "dir:/proc/nothing"); r.Code == 0 || !writes(t, s, time.Minute) {
		t.Errorf("a commit that fails half way, exit %d, leaves it frozen", r.Code)
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		args := s.Args("commit", "--pause", "live", "dir:"+out)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), s.Env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
		_ = cmd.Process.Signal(sig) // it may have ended
		err := cmd.Wait()
		t.Logf("%v: %v", sig, err)
		if !writes(t, s, time.Minute) {
			t.Errorf("a commit that ended with %v leaves it frozen", err)
		}
	}
	if r := s.Try("commit", "--pause", "--rm", "live"); r.Code != 2 {
		t.Errorf("--pause --rm: exit %d", r.Code)
	}
}

// unpacked is a directory with the layers of an image, in a directory already or in the store.
func unpacked(t *testing.T, s *lab.Store, image string) string {
	t.Helper()
	if dir, ok := strings.CutPrefix(image, "dir:"); ok {
		return dir
	}
	dir := filepath.Join(lab.TempDir(t), "image")
	lab.Skopeo(t, "copy", "--quiet", "--dest-decompress", s.Reference(image), "dir:"+dir)
	return dir
}

// consistent checks the files of the newest layer of an image.
func consistent(t *testing.T, dir string) {
	t.Helper()
	layers := readManifest(t, filepath.Join(dir, "manifest.json")).Layers
	f, err := os.Open(filepath.Join(dir, layers[len(layers)-1].Digest[len("sha256:"):]))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := 0
	for r := tar.NewReader(f); ; files++ {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || len(data) > 0 && bytes.Count(data, data[:1]) != len(data) && strings.HasPrefix(h.Name, "data/") {
			t.Errorf("%s is torn (%v)", h.Name, err)
		}
	}
	if files < 12 {
		t.Errorf("%d files", files)
	}
}

// writes reports whether the container writes within some time; it does so about ten times a second where it may.
func writes(t *testing.T, s *lab.Store, within time.Duration) bool {
	t.Helper()
	pid := s.Peer("podman", "inspect", "-f", "{{.State.Pid}}", "live")
	path := filepath.Join("/proc", pid, "root/data/0")
	changed := func() time.Time {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.ModTime()
	}
	first := changed()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !changed().Equal(first) {
			return true
		}
	}
	return false
}
