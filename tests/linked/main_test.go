package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) {
	asroot.Enter()
	os.Exit(asroot.Run(m))
}

func TestLinkedProgram(t *testing.T) {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root, runRoot, file := filepath.Join(dir, "g"), filepath.Join(dir, "r"), filepath.Join(dir, "a.tar")
	if err := run(context.Background(), root, runRoot, file); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "kimg")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a wrapped store has files of ours:", err)
	}

	members := readTar(t, file)
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(members["manifest.json"], &list); err != nil || len(list) != 1 || len(list[0].Layers) != 1 {
		t.Fatalf("manifest.json %s, %v", members["manifest.json"], err)
	}
	if len(list[0].RepoTags) != 1 || list[0].RepoTags[0] != "localhost/linked:latest" {
		t.Errorf("tags %v", list[0].RepoTags)
	}
	if config := string(members[list[0].Config]); !strings.Contains(config, `"Cmd":["cat","/hello"]`) || !strings.Contains(config, `"made-by":"linked"`) {
		t.Errorf("config %s", config)
	}
	if !strings.Contains(string(members[list[0].Layers[0]]), "from a program that links kimg") {
		t.Error("the file is not in the layer")
	}
}

// TestOtherToolsReadTheArchive asks skopeo what it thinks of the image.
func TestOtherToolsReadTheArchive(t *testing.T) {
	testenv.Need(t, "skopeo")
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "a.tar")
	if err := run(context.Background(), filepath.Join(dir, "g"), filepath.Join(dir, "r"), file); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("skopeo", "inspect", "--config", "docker-archive:"+file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "made-by") {
		t.Errorf("%v: %s", err, out)
	}
}

func readTar(t *testing.T, file string) map[string][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	members := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		if members[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
