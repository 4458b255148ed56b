package store_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// The same change to the same image makes the same layer, however the store keeps it: in an upper directory, in one with
// redirected directories and files whose content stayed below, or as a whole tree. What nobody changed makes none.
func TestSameLayerInEveryStore(t *testing.T) {
	testenv.Root(t) // an ordinary user's kernel has no redirects
	data := makeTar(t, file{name: "d/", kind: tar.TypeDir}, file{name: "d/sub/", kind: tar.TypeDir}, file{name: "d/sub/f", content: "content"},
		file{name: "big", content: "large"}, file{name: "gone", content: "x"}, file{name: "one", content: "y"},
		file{name: "two", kind: tar.TypeLink, link: "one"})
	digests := map[string]string{}
	for name, o := range map[string]store.Options{
		"overlay":  {Driver: "overlay", DriverOptions: []string{"overlay.mountopt=redirect_dir=off,metacopy=off"}},
		"redirect": {Driver: "overlay", DriverOptions: []string{"overlay.mountopt=redirect_dir=on,metacopy=on"}},
		"vfs":      {Driver: "vfs", DriverOptions: []string{}},
	} {
		dir := fastTemp(t)
		t.Cleanup(func() { unmountAll(t, dir) })
		o.Root, o.RunRoot, o.NoSync = filepath.Join(dir, "root"), filepath.Join(dir, "run"), true
		s, err := store.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		l, _, err := s.Storage().PutLayer("", "", nil, "", false, nil, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		img, err := s.PutImage(t.Context(), record(t, "x", l.ID, nil, l.UncompressedDigest))
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.NewContainer(t.Context(), img, store.ContainerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		mounted := false
		digest := func() layerdiff.Blob {
			stack, uids, gids, err := c.Stack(t.Context(), store.StackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Lgetxattr(filepath.Join(stack.Upper, "big"), "trusted.overlay.metacopy", nil); name == "redirect" && mounted && err != nil {
				testenv.Skip(t, "the kernel leaves no content below: %v", err)
			}
			blob, err := layerdiff.Write(t.Context(), io.Discard, stack, layerdiff.Options{UIDs: uids, GIDs: gids})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return blob
		}
		if blob := digest(); !blob.Empty {
			t.Errorf("%s: nothing was changed, %+v", name, blob)
		}
		root, err := c.Mount(t.Context())
		mounted = true
		if err != nil {
			t.Fatal(err)
		}
		path := func(name string) string { return filepath.Join(root, name) }
		if err := errors.Join(os.Chmod(path("big"), 0o600), os.Remove(path("gone")), os.WriteFile(path("new"), []byte("new"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if name == "overlay" { // where the kernel does not rename what is below, programs copy
			err = errors.Join(os.Mkdir(path("e"), 0o755), os.Rename(path("d/sub/f"), path("f")), os.Mkdir(path("e/sub"), 0o755),
				os.Rename(path("f"), path("e/sub/f")), os.RemoveAll(path("d")))
		} else {
			err = os.Rename(path("d"), path("e"))
		}
		when := time.Unix(1700000000, 0)
		for _, name := range []string{"new", "e/sub", "e"} {
			err = errors.Join(err, os.Chtimes(path(name), when, when))
		}
		err = errors.Join(err, os.Chmod(path("e"), 0o755), os.Chmod(path("e/sub"), 0o755), c.Unmount(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		digests[name] = digest().DiffID.String()
	}
	if digests["redirect"] != digests["overlay"] || digests["vfs"] != digests["overlay"] {
		t.Errorf("%v", digests)
	}
}
