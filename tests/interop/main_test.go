//go:build interop

// Package interop proves on real input that podman, buildah, skopeo and umoci read what kimg wrote, as root and as an
// ordinary user. Run it with make interop; the same binary runs as a user through make test-rootless.
package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg/tests/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	if os.Getenv(envHolder) != "" {
		if err := hold(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// same fails the test when two snapshots differ.
func same(t *testing.T, who, want, got string) {
	t.Helper()
	if want == "" {
		t.Fatalf("%s: the tree to compare with is empty", who)
	}
	if diff := lab.Compare(want, got); diff != "" {
		t.Errorf("%s shows another tree:\n\t%s", who, diff)
	}
}

// manifest is what the tests read of an image manifest.
type manifest struct {
	MediaType string
	Config    struct{ Digest, MediaType string }
	Layers    []struct{ Digest, MediaType string }
}

func readManifest(t *testing.T, path string) manifest {
	t.Helper()
	var m manifest
	readJSON(t, path, &m)
	return m
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// diffIDs are the layers of an image in the store, as skopeo reads them.
func diffIDs(t *testing.T, s *lab.Store, image string) []string {
	t.Helper()
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	out := lab.Skopeo(t, "inspect", "--config", "--raw", s.Reference(image))
	if err := json.Unmarshal([]byte(out), &config); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return config.RootFS.DiffIDs
}

// untarred copies an image with skopeo to a directory and applies its layers with an untar of the tests' own.
func untarred(t *testing.T, s *lab.Store, image string) string {
	t.Helper()
	dir := lab.TempDir(t)
	blobs, tree := filepath.Join(dir, "blobs"), filepath.Join(dir, "tree")
	lab.Skopeo(t, "copy", "-q", s.Reference(image), "dir:"+blobs)
	var layers []string
	for _, l := range readManifest(t, filepath.Join(blobs, "manifest.json")).Layers {
		layers = append(layers, filepath.Join(blobs, l.Digest[len("sha256:"):]))
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Helper(t, "untar", tree, layers...)
	return lab.Helper(t, "snapshot", tree)
}
