package commit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// bytesRead is what this process has read so far.
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err == nil {
		_, err = fmt.Sscanf(string(data), "rchar: %d", &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// valid checks every byte of the copies.
func valid(t *testing.T, r commit.Result) {
	t.Helper()
	checker := image.New(image.Options{Sys: system(t)})
	defer checker.Close()
	for _, copied := range r.Copies {
		v, err := checker.Validate(t.Context(), references(t, copied.Name)[0], false)
		if err != nil || !v.Valid() || v.Digest != copied.ManifestDigest || v.ConfigDigest.Encoded() != r.ImageID {
			t.Errorf("%s: %+v, %v", copied.Name, v, err)
		}
	}
}

// A container is read once, whatever its layer becomes at places in the file system, and with the store as well.
func TestContainerIsReadOnce(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := container(t, s, nil)
	const size = 8 << 20
	edit(t, c, func(root string) { write(t, root, "f", strings.Repeat("0123456789abcdef", size/16)) })
	for i, p := range []struct {
		algo  layerdiff.Compression
		dest  string
		names []string
		most  float64 // how often the content is read; archives read what was staged for them
	}{
		{"", "oci:%s:x", nil, 1}, {"", "dir:%s", nil, 1}, {layerdiff.Gzip, "oci:%s:x", nil, 1}, {layerdiff.Zstd, "dir:%s", nil, 1},
		{"", "docker-archive:%s:x:1", nil, 2}, {layerdiff.Gzip, "oci-archive:%s", nil, 1}, {"", "oci:%s", []string{"app"}, 1}, {layerdiff.Gzip, "oci:%s", []string{"app"}, 1},
	} {
		dest := references(t, fmt.Sprintf(p.dest, filepath.Join(dir, fmt.Sprint(i))))
		before := bytesRead(t)
		r, err := commit.Copy(t.Context(), s, c.ID, dest, commit.Options{Created: &day, Names: p.names}, commit.CopyOptions{Compression: p.algo, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if n := float64(bytesRead(t)-before) / size; n > p.most+0.2 {
			t.Errorf("%s of %s: the content was read %.2f times", dest[0].Transport().Name(), p.algo, n)
		}
		valid(t, r)
	}
}

// What changes in a container after it was read is in no image: nobody reads it again, at any place in the file system.
func TestPlacesShareOnePass(t *testing.T) {
	for _, algo := range []layerdiff.Compression{"", layerdiff.Gzip} {
		for _, names := range [][]string{nil, {"app"}} {
			s, dir := newStore(t), t.TempDir()
			c := container(t, s, nil)
			edit(t, c, func(root string) { write(t, root, "f", strings.Repeat("hello ", 100000)) })
			dests := references(t, "oci:"+dir+"/a:1", "dir:"+dir+"/b", "oci-archive:"+dir+"/c", "oci:"+dir+"/a:2")
			if algo == "" {
				dests = append(dests, references(t, "docker-archive:"+dir+"/d")...)
			}
			changed := false
			o := commit.Options{Created: &day, Names: names, Progress: func(e commit.Event) {
				if e.Step == commit.StepConfig && !changed {
					changed = true
					edit(t, c, func(root string) { write(t, root, "f", "y") })
				}
			}}
			r, err := commit.Copy(t.Context(), s, c.ID, dests, o, commit.CopyOptions{Compression: algo, NoSync: true})
			if err != nil || !changed {
				t.Fatal(algo, names, err)
			}
			valid(t, r)
		}
	}
}

// manyLayers makes a container on an image of six layers, two of which are equal.
func manyLayers(t *testing.T, s *store.Store) *store.Container {
	t.Helper()
	c := container(t, s, nil)
	for i, name := range []string{"a", "b", "c", "d", "", "a", "e"} {
		edit(t, c, func(root string) {
			if name == "" {
				write(t, root, "a", "")
				return
			}
			write(t, root, name, strings.Repeat(name, 300000))
			if err := os.Chtimes(filepath.Join(root, name), day, day); err != nil {
				t.Fatal(err)
			}
		})
		if i < 6 {
			img, _ := into(t, s, c, commit.Options{})
			c = container(t, s, img)
		}
	}
	return c
}

// E4, E5: the layers of an image are made side by side, equal ones once, and who comes while another makes them waits and finds
// out what came out. The bytes do not depend on any of it.
func TestLayersSideBySide(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := manyLayers(t, s)
	co := commit.CopyOptions{Compression: layerdiff.Gzip, NoSync: true}
	var first commit.Result
	for jobs := range 4 {
		for _, co.Level = range []int{0, jobs + 1} { // known after the first time, and not
			dest := references(t, fmt.Sprintf("oci:%s/%d-%d:x", dir, jobs, co.Level))
			r, err := commit.Copy(t.Context(), s, c.ID, dest, commit.Options{Created: &day, Jobs: jobs}, co)
			if err != nil {
				t.Fatal(err)
			}
			valid(t, r)
			if first.ImageID == "" {
				first = r
			}
			if co.Level == 0 && r.ManifestDigest != first.ManifestDigest {
				t.Errorf("%d jobs give manifest %s, not %s", jobs, r.ManifestDigest, first.ManifestDigest)
			}
		}
	}
	if len(first.DiffIDs) != 7 || first.DiffIDs[0] != first.DiffIDs[5] {
		t.Fatalf("layers %v", first.DiffIDs)
	}

	// Another process makes one of the layers.
	co.Level = 8
	other := store.KnownBlob{DiffID: first.DiffIDs[2], Algorithm: "gzip", Level: co.Level}
	unlock, err := s.LockBlob(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := commit.Copy(t.Context(), s, c.ID, references(t, "oci:"+dir+"/waits"), commit.Options{}, co)
		done <- err
	}()
	select {
	case err := <-done:
		unlock()
		t.Fatalf("did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	chain, err := s.LayersWith(t.Context(), other.DiffID)
	if err != nil || len(chain) != 1 {
		t.Fatal(chain, err)
	}
	known, err := s.KnownBlobs(t.Context(), chain[0])
	if err != nil || !slices.ContainsFunc(known, func(b store.KnownBlob) bool { return b.Level == co.Level && b.DiffID == other.DiffID }) {
		t.Errorf("%v, %v", known, err)
	}
}
