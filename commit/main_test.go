package commit_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) { asroot.Main(m) }

// newStore opens an empty overlay store that goes away with the test.
func newStore(t *testing.T) *store.Store {
	t.Helper()
	dir, err := os.MkdirTemp("", "kimg-") // short: overlay's mount options are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := store.Open(store.Options{
		Root: filepath.Join(dir, "g"), RunRoot: filepath.Join(dir, "r"), Driver: "overlay", DriverOptions: []string{}, NoSync: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Storage().Shutdown(true); err != nil {
			t.Error(err)
		}
	})
	return s
}

// system is what the image library is told: nothing of this machine.
func system(t *testing.T) *types.SystemContext {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return &types.SystemContext{
		SignaturePolicyPath: policy, AuthFilePath: filepath.Join(dir, "auth.json"), SystemRegistriesConfPath: "/dev/null", RegistriesDirPath: "/nonexistent",
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue, BlobInfoCacheDir: dir, BigFilesTemporaryDir: dir,
	}
}

// container makes a working container; base nil is scratch.
func container(t *testing.T, s *store.Store, base *store.Image) *store.Container {
	t.Helper()
	c, err := s.NewContainer(t.Context(), base, store.ContainerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// edit changes the container's tree.
func edit(t *testing.T, c *store.Container, fn func(root string)) {
	t.Helper()
	if err := c.WithMount(t.Context(), func(root string) error { fn(root); return nil }); err != nil {
		t.Fatal(err)
	}
}

// write makes a file below root; content "" removes it.
func write(t *testing.T, root, path, content string) {
	t.Helper()
	path = filepath.Join(root, path)
	if content == "" {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

var day = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// into commits at a fixed time and returns the image.
func into(t *testing.T, s *store.Store, c *store.Container, o commit.Options) (*store.Image, commit.Result) {
	t.Helper()
	o.Created = &day
	r, err := commit.Container(context.Background(), s, c.ID, o)
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), r.ImageID, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img, r
}

// layers counts the layers of the store.
func layers(t *testing.T, s *store.Store) int {
	t.Helper()
	all, err := s.Storage().Layers()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
