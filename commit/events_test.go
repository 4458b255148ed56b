package commit_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// TestEvents covers X21: who listens to a store is told what is there, changed or gone, what went wrong without harm, and how far a
// commit is; and nobody else is.
func TestEvents(t *testing.T) {
	s, other := newStore(t), newStore(t)
	var mu sync.Mutex
	var all []store.Event
	s.Listen(nil, func(e store.Event) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, e)
	})
	other.Listen(nil, func(e store.Event) { t.Errorf("of another store: %+v", e) })
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	img, r := into(t, s, c, commit.Options{Names: []string{"x"}})
	if _, err := s.Tag(t.Context(), "x", "y"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tag(t.Context(), "nosuch", "y"); err == nil {
		t.Fatal("tagged nothing")
	}
	l, err := s.Lease(t.Context(), store.LeaseOptions{Image: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	steps := map[string]bool{}
	for _, e := range all {
		switch {
		case e.Time.IsZero():
			t.Errorf("%+v", e)
		case e.Type == store.EventResult:
			got = append(got, e.Op+" "+e.Object)
		case e.Type == store.EventProgress && e.Done:
			steps[e.Text] = true
		}
	}
	top, err := s.Storage().Layer(img.TopLayer)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"from container " + c.ID, "commit layer " + top.ID, "commit image " + r.ImageID, "tag image " + r.ImageID, "lease lease " + l.ID(), "release container " + l.ID()}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if !steps[string(commit.StepLayers)] || !steps[string(commit.StepManifest)] {
		t.Errorf("steps %v", steps)
	}

	var log bytes.Buffer
	s.Listen(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})), func(e store.Event) { all = []store.Event{e} })
	s.Logger().With("a", 1).Warn("careful\nnow", "b", 2)
	if e := all[0]; e.Type != store.EventWarning || !strings.Contains(e.Text, "careful; now; b=2") || log.Len() > 0 {
		t.Errorf("%+v, %s", e, &log)
	}
}
