package store_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTornAfterRecording: the power goes when everything is recorded and marked so, but before the last sync. The driver's
// own file about the new container's layer is there and empty. Nobody was told that the container exists, so it goes.
func TestTornAfterRecording(t *testing.T) {
	ts := prepare(t)
	before := ts.shape(t)
	old := ts.layerDirs(t)
	if _, killed := ts.run(t, "from", "change.recorded=kill"); !killed {
		t.Fatal("not killed")
	}
	torn := 0
	for dir := range ts.layerDirs(t) {
		if !old[dir] {
			torn++
			if err := os.Truncate(filepath.Join(dir, "link"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if torn != 1 {
		t.Fatalf("%d new layers", torn)
	}
	if err, _ := ts.run(t, "open", ""); err != nil {
		t.Fatal(err)
	}
	if got := ts.shape(t); got != before {
		t.Errorf("not taken back:\n%s", diff(before, got))
	}
	if err, _ := ts.run(t, "from", ""); err != nil {
		t.Error("once more:", err)
	}
}

// layerDirs are the directories of the driver's layers.
func (ts *testStore) layerDirs(t *testing.T) map[string]bool {
	t.Helper()
	links, err := filepath.Glob(filepath.Join(ts.root, "overlay", "*", "link"))
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]bool{}
	for _, link := range links {
		dirs[filepath.Dir(link)] = true
	}
	return dirs
}
