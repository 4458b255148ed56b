package archive

import (
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
)

// FuzzOpen opens any bytes as both kinds of archive and reads everything that is offered: no panic, every error of a
// class, no blob but those of the archive.
func FuzzOpen(f *testing.F) {
	img := testimage.NewImage(1, testimage.ImageOptions{Docker: true})
	f.Add(pack(f, dockerEntries(img, "a:1")...), "")
	old, ids := legacyEntries("one", "two", "one")
	f.Add(pack(f, append(old, file("repositories", `{"a":{"1":"`+ids[2]+`"}}`))...), "a:1")
	f.Add(pack(f, file("index.json", `{"schemaVersion":2,"manifests":[]}`), link("oci-layout", "index.json")), "@0")
	f.Add(gzipped(f, pack(f, dockerEntries(img)...)), "@0")
	for _, h := range testimage.HostileTars("/canary") {
		f.Add(h.Tar, "")
	}
	f.Fuzz(func(t *testing.T, data []byte, ref string) {
		path := save(t, data)
		for _, open := range []func() (*Source, error){
			func() (*Source, error) { return OpenDocker(t.Context(), path, ref, Options{TempDir: t.TempDir()}) },
			func() (*Source, error) { return OpenOCI(t.Context(), path, ref, Options{TempDir: t.TempDir()}) },
		} {
			s, err := open()
			if err != nil {
				if kimg.ClassOf(err) == kimg.ErrInternal {
					t.Errorf("%v", err)
				}
				continue
			}
			if m, err := s.Manifest(t.Context()); err != nil || len(m) > 4<<20 {
				t.Errorf("%d bytes, %v", len(m), err)
			}
			for d := range s.blobs {
				r, size, err := s.Blob(t.Context(), d)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != size {
					t.Errorf("%s: %d of %d bytes, %v", d, n, size, err)
				}
			}
			if _, _, err := s.Blob(t.Context(), digest.FromString("not there")); err == nil {
				t.Error("a blob nobody has")
			}
			s.Close()
		}
		os.Remove(path)
	})
}

// FuzzLists reads any bytes as manifest.json and as repositories.
func FuzzLists(f *testing.F) {
	f.Add([]byte(`[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`), "a:1")
	f.Add([]byte(`{"a":{"1":"0000000000000000000000000000000000000000000000000000000000000000"}}`), "")
	f.Fuzz(func(t *testing.T, data []byte, ref string) {
		items, err := parseItems(data)
		class(t, err)
		var tags [][]string
		for _, it := range items {
			tags = append(tags, it.RepoTags)
		}
		if n, err := choose(tags, ref); err == nil && n >= len(tags) {
			t.Errorf("image %d of %d", n, len(tags))
		} else {
			class(t, err)
		}
		all, err := parseRepositories(data)
		class(t, err)
		for _, tag := range all {
			if err == nil && v1ID(tag.id) != nil {
				t.Errorf("%q", tag.id)
			}
		}
	})
}

func class(t *testing.T, err error) {
	t.Helper()
	if err != nil && kimg.ClassOf(err) == kimg.ErrInternal {
		t.Errorf("%v", err)
	}
}
