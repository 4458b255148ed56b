package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// garbage lists what gc would remove, as kind and the beginning of the id.
func garbage(t *testing.T, s *store.Store, before time.Time) string {
	t.Helper()
	found, err := s.Garbage(t.Context(), before)
	must(t, err)
	var b strings.Builder
	for _, g := range found {
		if g.Kind == "lease" || g.Kind == "layer" {
			g.ID = g.ID[:8]
		}
		fmt.Fprintln(&b, g.Kind, filepath.Base(g.ID))
	}
	return b.String()
}

// TestGC: nothing that is in use, or may be soon, is garbage; everything else is, and can be removed.
func TestGC(t *testing.T) {
	for _, driver := range []string{"", "vfs"} {
		t.Run("driver="+driver, func(t *testing.T) { testGC(t, prepareOf(t, driver)) })
	}
}

func testGC(t *testing.T, ts *testStore) {
	ctx := t.Context()
	now := func() time.Time { return time.Now().Add(time.Second) }
	if got := garbage(t, ts.Store, now()); got != "" {
		t.Errorf("of a tidy store: %s", got)
	}
	tidy := ts.inventory(t)

	// Two layers of a build that has no image yet.
	one, err := ts.AddLayer(ctx, "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "one"}))))
	must(t, err)
	cut := time.Now()
	two, err := ts.AddLayer(ctx, one.ID, store.TarSource(bytes.NewReader(makeTar(t, file{name: "two"}))))
	must(t, err)
	for _, before := range []time.Time{{}, cut} { // with the second one, the first stays
		if got := garbage(t, ts.Store, before); got != "" {
			t.Errorf("layers of a build: %s", got)
		}
	}
	if got, want := garbage(t, ts.Store, now()), "layer "+two.ID[:8]+"\nlayer "+one.ID[:8]+"\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// Whoever lists sees what somebody then takes: it stays.
	found, err := ts.Garbage(ctx, now())
	must(t, err)
	img, err := ts.PutImage(ctx, record(t, "late", one.ID, []string{"late"}, one.UncompressedDigest))
	must(t, err)
	removed, err := ts.Collect(ctx, found, now())
	if err != nil || len(removed) != 1 || removed[0].ID != two.ID {
		t.Errorf("%+v, %v", removed, err)
	}
	if layers, err := img.Layers(ctx); err != nil || len(layers) != 1 {
		t.Errorf("%+v, %v", layers, err)
	}
	_, err = ts.DeleteImage(ctx, "late", false)
	must(t, err)

	// A named layer is somebody's; one that is over is a lease's.
	named, err := ts.Storage().CreateLayer("", "", []string{"somebody's"}, "", false, nil)
	must(t, err)
	if _, err := ts.Lease(ctx, store.LeaseOptions{Image: "unused", TTL: time.Second}); err != nil {
		t.Fatal(err)
	}
	held, err := ts.Lease(ctx, store.LeaseOptions{Image: "base"})
	must(t, err)
	c, err := ts.Container(ctx, "old")
	must(t, err)
	unfinished := filepath.Join(ts.root, ts.Storage().GraphDriverName()+"-containers", c.ID, "userdata", "."+copydata.FileName+".tmp-1")
	write(t, unfinished, "{")
	time.Sleep(time.Second)
	if got := garbage(t, ts.Store, time.Time{}); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "lease ") {
		t.Errorf("a lease that is over: %s", got)
	}
	if got := garbage(t, ts.Store, now()); strings.Count(got, "\n") != 2 || !strings.HasSuffix(got, "file "+filepath.Base(unfinished)+"\n") {
		t.Errorf("and an unfinished file: %s", got)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if found, err = ts.Garbage(ctx, now()); err != nil {
		t.Fatal(err)
	}
	if removed, err := ts.Collect(cancelled, found, now()); !errors.Is(err, kimg.ErrInterrupted) && !errors.Is(err, context.Canceled) || len(removed) != 0 {
		t.Errorf("%+v, %v", removed, err)
	}
	if removed, err := ts.Collect(ctx, found, now()); err != nil || len(removed) != 2 {
		t.Errorf("%+v, %v", removed, err)
	}
	if removed, err := ts.Collect(ctx, found, now()); err != nil || len(removed) != 0 {
		t.Errorf("again: %+v, %v", removed, err)
	}
	must(t, held.Renew(ctx, 0))
	must(t, held.Release(ctx))
	must(t, ts.Storage().DeleteLayer(named.ID))
	if got := ts.inventory(t); got != tidy {
		t.Errorf("left behind:\n%s", diff(tidy, got))
	}
}

// TestGCLeavesRunningChangesAlone lists and collects beside a change that stages, and one that has applied its layers.
func TestGCLeavesRunningChangesAlone(t *testing.T) {
	for _, point := range []string{"layer.stage.end", "layer.apply.end"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			ts := prepare(t)
			wait := ts.startPaused(t, "import", point)
			for range 20 {
				found, err := ts.Garbage(t.Context(), time.Now().Add(time.Second))
				must(t, err)
				if removed, err := ts.Collect(t.Context(), found, time.Now().Add(time.Second)); err != nil || len(removed) != 0 {
					t.Fatalf("%+v, %v", removed, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			must(t, wait())
		})
	}
}

// TestGCOfStaging: in a wrapped store only the time tells who fills a staging directory.
func TestGCOfStaging(t *testing.T) {
	ts := newStore(t)
	ts.addImage(t, "f", "base")
	dir := filepath.Join(ts.root, "overlay", "staging", "dead")
	must(t, os.MkdirAll(filepath.Join(dir, "dir"), 0o700))
	wrapped := store.Wrap(ts.Storage())
	for age, want := range map[time.Duration][2]string{ // opened, wrapped
		time.Minute: {"", ""}, 2 * time.Hour: {"staging dead\n", ""}, 25 * time.Hour: {"staging dead\n", "staging dead\n"},
	} {
		at := time.Now().Add(-age)
		must(t, os.Chtimes(dir, at, at))
		for i, s := range []*store.Store{ts.Store, wrapped} {
			if got := garbage(t, s, time.Time{}); got != want[i] {
				t.Errorf("%v, %d: %q", age, i, got)
			}
		}
	}
	old := time.Now().Add(-25 * time.Hour)
	must(t, os.Chtimes(dir, old, old))
	found, err := wrapped.Garbage(t.Context(), time.Time{})
	must(t, err)
	if removed, err := wrapped.Collect(t.Context(), found, time.Time{}); err != nil || len(removed) != 1 {
		t.Errorf("%+v, %v", removed, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("still there")
	}
}

// TestCollectOwn: what is no garbage of this store is not touched, whoever says that it is.
func TestCollectOwn(t *testing.T) {
	ts := prepare(t)
	mine := filepath.Join(t.TempDir(), "dir", "file")
	must(t, os.MkdirAll(filepath.Dir(mine), 0o700))
	must(t, os.WriteFile(mine, nil, 0o600))
	at := time.Now().Add(-25 * time.Hour)
	must(t, os.Chtimes(filepath.Dir(mine), at, at))
	before := ts.inventory(t)
	img, err := ts.Resolve(t.Context(), "base", nil)
	must(t, err)
	found := []store.Garbage{{Kind: "file", ID: mine}, {Kind: "staging", ID: filepath.Dir(mine)}, {Kind: "layer", ID: img.TopLayer}, {Kind: "lease", ID: img.ID}}
	if removed, err := ts.Collect(t.Context(), found, time.Now().Add(time.Second)); err != nil || len(removed) != 0 {
		t.Errorf("%+v, %v", removed, err)
	}
	if _, err := ts.Collect(t.Context(), []store.Garbage{{Kind: "other", ID: mine}}, time.Time{}); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error(err)
	}
	if _, err := os.Stat(mine); err != nil || ts.inventory(t) != before {
		t.Errorf("%v\n%s", err, diff(before, ts.inventory(t)))
	}
}
