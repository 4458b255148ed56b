package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containers/storage/pkg/mount"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// TestConfiguration (U2) opens the stores that storage.conf and the environment name. The library reads them once per process.
func TestConfiguration(t *testing.T) {
	if dir := os.Getenv("KIMG_STORE_TEST_CONF"); dir != "" {
		inConfigured(t, dir, os.Getenv("KIMG_STORE_TEST_WANT"))
		return
	}
	for name, c := range map[string]struct {
		conf, want string
		env        []string
	}{
		"file":        {`driver = "overlay"`, "overlay", nil},
		"environment": {`driver = "overlay"`, "vfs", []string{"STORAGE_DRIVER=vfs"}},
		"vfs":         {`driver = "vfs"`, "vfs", nil},
		"btrfs":       {`driver = "btrfs"`, "unsupported", nil},
		"quota":       {"driver = \"overlay\"\n[storage.options.overlay]\nsize = \"1G\"", "unsupported", nil},
		"options":     {`driver = "overlay"`, "unsupported", []string{"STORAGE_OPTS=overlay.size=1G"}},
		"damaged":     {`driver = `, "error", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Cleanup(func() { unmountAll(t, dir) })
			conf := fmt.Sprintf("[storage]\ngraphroot = %q\nrunroot = %q\n%s\n", filepath.Join(dir, "root"), filepath.Join(dir, "run"), c.conf)
			write(t, filepath.Join(dir, "storage.conf"), conf)
			env := append([]string{"CONTAINERS_STORAGE_CONF=" + filepath.Join(dir, "storage.conf"), "KIMG_STORE_TEST_CONF=" + dir, "KIMG_STORE_TEST_WANT=" + c.want}, c.env...)
			rerun(t, "TestConfiguration", env...)
		})
	}
}

func inConfigured(t *testing.T, dir, want string) {
	s, err := store.Open(store.Options{})
	switch want {
	case "unsupported":
		if !errors.Is(err, kimg.ErrUnsupported) {
			t.Errorf("%v", err)
		}
		return
	case "error":
		if err == nil {
			t.Error("a damaged configuration was accepted")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if i := s.Info(); i.Root != filepath.Join(dir, "root") || i.RunRoot != filepath.Join(dir, "run") || i.Driver != want {
		t.Errorf("%+v", i)
	}
}

func TestReadOnlyStore(t *testing.T) {
	ts := prepare(t)
	must(t, ts.Close())
	mounts := []string{ts.root, filepath.Join(ts.root, "overlay")}
	for _, dir := range mounts {
		must(t, mount.Mount(dir, dir, "none", "bind,ro"))
	}
	defer func() {
		for range mounts {
			must(t, mount.Unmount(ts.root))
		}
	}()
	_, err := store.Open(store.Options{Root: ts.root, RunRoot: ts.runRoot, Driver: "overlay", DriverOptions: []string{}})
	if !errors.Is(err, kimg.ErrReadOnly) {
		t.Errorf("%v", err)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		damage func(ts *testStore, img *store.Image) error
	}{
		"a file of a layer": {"layer", func(ts *testStore, img *store.Image) error {
			return os.Remove(filepath.Join(ts.root, "overlay", img.TopLayer, "diff", "base-file"))
		}},
		"a config": {"image", func(ts *testStore, img *store.Image) error {
			dir := filepath.Join(ts.root, "overlay-images", img.ID)
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ts := prepare(t)
			img, err := ts.Resolve(t.Context(), "base", nil)
			must(t, err)
			must(t, c.damage(ts, img))
			before := ts.inventory(t)
			problems, err := ts.Check(t.Context())
			must(t, err)
			found := false
			for _, p := range problems {
				found = found || p.Kind == c.kind && p.Class == kimg.ErrDamaged && p.Advice != ""
			}
			if !found {
				t.Errorf("%+v", problems)
			}
			if got := ts.inventory(t); got != before {
				t.Errorf("check changed the store:\n%s", diff(before, got))
			}
		})
	}
}
