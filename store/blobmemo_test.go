package store_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/store"
)

func knownBlob(what string, level int) store.KnownBlob {
	return store.KnownBlob{
		DiffID: digest.FromString(what), Algorithm: "zstd", Level: level, Digest: digest.FromString(what + string(rune('a'+level))), Size: 7,
	}
}

// E6: What a layer remembers is read back by everybody who opens the store, also where it is wrapped; the newest come first.
func TestBlobMemo(t *testing.T) {
	ts := prepare(t)
	s := ts.open(t)
	img, err := s.Resolve(t.Context(), "base", nil)
	must(t, err)
	id := img.TopLayer
	known := func(s *store.Store) []store.KnownBlob {
		t.Helper()
		list, err := s.KnownBlobs(t.Context(), id)
		must(t, err)
		return list
	}
	if list := known(s); len(list) != 0 {
		t.Errorf("knows %v before anything was made", list)
	}
	one, two := knownBlob("x", 1), knownBlob("x", 2)
	must(t, s.RememberBlobs(t.Context(), map[string][]store.KnownBlob{id: {one}, strings.Repeat("0", 64): {one}}))
	wrapped := store.Wrap(s.Storage())
	must(t, wrapped.RememberBlobs(t.Context(), map[string][]store.KnownBlob{id: {two}}))
	if list := known(ts.open(t)); !slices.Equal(list, []store.KnownBlob{two, one}) {
		t.Errorf("knows %v", list)
	}
	again := one
	again.Digest = digest.FromString("made anew")
	forget := two
	forget.Digest = ""
	must(t, s.RememberBlobs(t.Context(), map[string][]store.KnownBlob{id: {again, forget}}))
	if list := known(wrapped); !slices.Equal(list, []store.KnownBlob{again}) {
		t.Errorf("knows %v", list)
	}
	for level := range 20 {
		must(t, s.RememberBlobs(t.Context(), map[string][]store.KnownBlob{id: {knownBlob("y", level)}}))
	}
	if list := known(s); len(list) != 16 || list[0] != knownBlob("y", 19) {
		t.Errorf("knows %d, the newest %v", len(list), list[0])
	}
	if problems, err := s.Check(t.Context()); err != nil || len(problems) != 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
}

// A damaged memo is none: it is said, and the next one takes its place.
func TestBlobMemoDamaged(t *testing.T) {
	ts := prepare(t)
	s := ts.open(t)
	img, err := s.Resolve(t.Context(), "base", nil)
	must(t, err)
	id, good := img.TopLayer, knownBlob("x", 1)
	must(t, s.RememberBlobs(t.Context(), map[string][]store.KnownBlob{id: {good}}))
	files, err := filepath.Glob(filepath.Join(s.Info().Root, "overlay-layers", id, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	data, err := os.ReadFile(files[0])
	must(t, err)
	for name, bad := range map[string]string{
		"empty": "", "cut": string(data[:len(data)-1]), "schema": strings.Replace(string(data), `"schema":1`, `"schema":2`, 1),
		"digest": strings.Replace(string(data), "sha256:", "md5:", 1), "size": strings.Replace(string(data), `"size":7`, `"size":-7`, 1),
		"algorithm": strings.Replace(string(data), "zstd", "lzma", 1), "twice": strings.Replace(string(data), `"size":7`, `"size":7,"size":8`, 1),
		"large": string(data) + strings.Repeat(" ", 1<<20),
		"many":  `{"schema":1,"blobs":[` + strings.Repeat(`{},`, 16) + `{}]}`,
	} {
		must(t, os.WriteFile(files[0], []byte(bad), 0o600))
		var log bytes.Buffer
		s, err := store.Open(store.Options{
			Root: s.Info().Root, RunRoot: s.Info().RunRoot, Driver: "overlay", DriverOptions: []string{}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		must(t, err)
		list, err := s.KnownBlobs(t.Context(), id)
		if err != nil || len(list) != 0 || !strings.Contains(log.String(), "damaged") {
			t.Errorf("%s: knows %v, %v; log %q", name, list, err, &log)
		}
		must(t, s.RememberBlobs(t.Context(), map[string][]store.KnownBlob{id: {good}}))
		if list, err := s.KnownBlobs(t.Context(), id); err != nil || !slices.Equal(list, []store.KnownBlob{good}) {
			t.Errorf("%s: afterwards knows %v, %v", name, list, err)
		}
		must(t, s.Close())
	}
}
