// Package linked runs docs/examples/podlike, a program of another module that links kimg and has a storage.Store of its
// own, as root and as an ordinary user. KIMG_PODLIKE names the program; without it, it is built.
package linked

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// podlike is the program on a store below dir.
func podlike(t *testing.T, dir string) func(args ...string) lab.Result {
	t.Helper()
	bin := os.Getenv("KIMG_PODLIKE")
	if bin == "" {
		bin = filepath.Join(lab.TempDir(t), "podlike")
		build := exec.Command("go", "build", "-o", bin, ".")
		build.Dir = "../../docs/examples/podlike"
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return func(args ...string) lab.Result {
		return lab.Run(t, nil, append([]string{bin, "-root", filepath.Join(dir, "g"), "-runroot", filepath.Join(dir, "r")}, args...)...)
	}
}

// TestPodlike goes from nothing to a base, from the base to an image, and sends that to a directory and to a registry: the
// same image everywhere, which another tool reads.
func TestPodlike(t *testing.T) {
	testenv.Need(t, "skopeo")
	addr, dir := lab.Registry(t), lab.TempDir(t)
	run := podlike(t, dir)
	if r := run("-name", "base", "-write", "etc/motd=hi"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	layout, remote := "oci:"+filepath.Join(dir, "layout")+":app", "docker://"+addr+"/app:1"
	r := run("-from", "base", "-name", "app", "-insecure", "-write", "etc/motd=hello", "-write", "hello=from a program that links kimg", layout, remote)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	lines := strings.Split(r.Stdout, "\n")
	if len(lines) != 6 || !slices.Equal(lines[:3], []string{"C /etc", "C /etc/motd", "A /hello"}) {
		t.Fatalf("%q", lines)
	}
	id := lines[3]
	for i, place := range []string{layout, remote} {
		if digest, ok := strings.CutPrefix(lines[4+i], place+" "); !ok || !strings.HasPrefix(digest, "sha256:") {
			t.Errorf("%q", lines[4+i])
		}
		var m struct {
			Config struct{ Digest string }
			Layers []struct{ Digest string }
		}
		decode(t, &m, "inspect", "--raw", "--tls-verify=false", place)
		if m.Config.Digest != "sha256:"+id || len(m.Layers) != 2 {
			t.Errorf("%s: %+v, image ID %s", place, m, id)
		}
		var config struct{ Config struct{ Cmd []string } }
		decode(t, &config, "inspect", "--config", "--tls-verify=false", place)
		if !slices.Equal(config.Config.Cmd, []string{"cat", "/etc/motd"}) {
			t.Errorf("%s: %+v", place, config)
		}
	}
	empty(t, dir)
	if _, err := os.Lstat(filepath.Join(dir, "g", "kimg")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a wrapped store has files of ours:", err)
	}
}

// TestPodlikeFails: what goes wrong at a destination is one line, and the program leaves no container.
func TestPodlikeFails(t *testing.T) {
	dir := lab.TempDir(t)
	run := podlike(t, dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-from", "nobody"}, {"-write", "a=b", "oci:" + file + "/layout:x"}, {"-write", "a=b", "tape:0"}} {
		r := run(append([]string{"-name", "x"}, args...)...)
		if r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !strings.HasPrefix(r.Stderr, "podlike: ") {
			t.Errorf("%v: %+v", args, r)
		}
		empty(t, dir)
	}
}

// empty fails the test unless the store has no container.
func empty(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "g", "overlay-containers", "containers.json"))
	if text := strings.TrimSpace(string(data)); err != nil && !errors.Is(err, os.ErrNotExist) || text != "" && text != "[]" {
		t.Errorf("containers: %s, %v", text, err)
	}
}

func decode(t *testing.T, v any, args ...string) {
	t.Helper()
	if err := json.Unmarshal([]byte(lab.Must(t, nil, append([]string{"skopeo"}, args...)...)), v); err != nil {
		t.Fatal(err)
	}
}
