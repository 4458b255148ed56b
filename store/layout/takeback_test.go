package layout

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg"
)

// publish writes a manifest that names nothing else and commits.
func publish(t *testing.T, d *Destination, manifest string) {
	t.Helper()
	if err := d.Commit(t.Context(), []byte(manifest), "application/vnd.oci.image.manifest.v1+json"); err != nil {
		t.Fatal(err)
	}
}

func openNew(t *testing.T, path, name string) *Destination {
	t.Helper()
	d, err := CreateOCI(t.Context(), path, name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTakeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "layout")
	first := openNew(t, path, "one")
	publish(t, first, `{"schemaVersion":2,"first":1}`)
	if err := first.TakeBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(filepath.Dir(path))); err != nil || len(left) != 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}

	// Two images in one layout go in the other order; one that another process has built upon stays.
	first, second := openNew(t, path, "one"), openNew(t, path, "two")
	defer first.Close()
	defer second.Close()
	publish(t, first, `{"schemaVersion":2,"first":1}`)
	one, err := os.ReadFile(filepath.Join(path, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, second, `{"schemaVersion":2,"second":1}`)
	if err := first.TakeBack(t.Context()); kimg.ClassOf(err) != kimg.ErrBusy {
		t.Errorf("the one below: %v", err)
	}
	if err := second.TakeBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(filepath.Join(path, "index.json")); err != nil || !bytes.Equal(now, one) {
		t.Errorf("index %s, %v", now, err)
	}
	if err := first.TakeBack(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.TakeBack(t.Context()); err != nil { // nothing to do
		t.Error(err)
	}
}
