package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/asroot"
)

type storeType = store.Store

func TestMain(m *testing.M) { asroot.Main(m) }

func ref(t *testing.T, text string) types.ImageReference {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// policyFile writes a signature policy, so that the machine's does not matter.
func policyFile(t *testing.T, requirement string) *types.SystemContext {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(`{"default":[{"type":"`+requirement+`"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return &types.SystemContext{SignaturePolicyPath: file}
}

// converter makes one that is closed with the test.
func converter(t *testing.T, o Options) *Converter {
	t.Helper()
	if o.Sys == nil {
		o.Sys = policyFile(t, "insecureAcceptAnything")
	}
	o.NoSync, o.RetryPause = true, time.Millisecond
	c := New(o)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *Converter) try(t *testing.T, src, dst string) (Result, error) {
	t.Helper()
	return c.Convert(context.Background(), ref(t, src), ref(t, dst))
}

func (c *Converter) must(t *testing.T, src, dst string) Result {
	t.Helper()
	r, err := c.try(t, src, dst)
	if err != nil {
		t.Fatalf("%s -> %s: %v", src, dst, err)
	}
	return r
}

// newStore opens an empty store that goes away with the test.
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

// check fails the test on an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files lists a directory, for comparing before and after.
func files(t *testing.T, dir string) []testimage.Item {
	t.Helper()
	items, err := testimage.Snapshot(dir)
	check(t, err)
	for i := range items {
		if items[i].Type == 'd' {
			items[i].Sec, items[i].Nsec = 0, 0 // what is staged and removed moves the time of the directory
		}
	}
	return items
}

func same(t *testing.T, what string, before, after []testimage.Item) {
	t.Helper()
	if d := testimage.Diff(before, after); len(d) > 0 {
		t.Errorf("%s changed:\n%s", what, strings.Join(d, "\n"))
	}
}

// layoutBlob is where a layout keeps a blob.
func layoutBlob(dir, digest string) string { return filepath.Join(dir, "blobs/sha256", digest[7:]) }

// edit changes a JSON document.
func edit(t *testing.T, data []byte, change func(map[string]any)) []byte {
	t.Helper()
	var doc map[string]any
	check(t, json.Unmarshal(data, &doc))
	change(doc)
	out, err := json.Marshal(doc)
	check(t, err)
	return out
}

// rewriteTar changes the members of a tar file; content nil leaves one out.
func rewriteTar(t *testing.T, file string, change func(name string, content []byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	check(t, err)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		content, err := io.ReadAll(r)
		check(t, err)
		if h.Typeflag == tar.TypeReg {
			if content = change(h.Name, content); content == nil {
				continue
			}
			h.Size = int64(len(content))
		}
		check(t, w.WriteHeader(h))
		_, err = w.Write(content)
		check(t, err)
	}
	check(t, w.Close())
	check(t, os.WriteFile(file, out.Bytes(), 0o644))
}

func runTar(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}
