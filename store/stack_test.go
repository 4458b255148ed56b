package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/idtools"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// kinds are the ways a store can keep trees. Redirects are for root: an ordinary user's kernel has none.
func kinds(t *testing.T) map[string]store.Options {
	fuse := testenv.FUSE(t)
	all := map[string]store.Options{
		"overlay": {Driver: "overlay", DriverOptions: []string{}},
		"vfs":     {Driver: "vfs", DriverOptions: []string{}},
		"fuse":    {Driver: "overlay", DriverOptions: []string{"overlay.mount_program=" + fuse}},
	}
	if testenv.IsRoot() {
		all["overlay"] = store.Options{Driver: "overlay", DriverOptions: []string{"overlay.mountopt=redirect_dir=off,metacopy=off"}}
		all["redirect"] = store.Options{Driver: "overlay", DriverOptions: []string{"overlay.mountopt=redirect_dir=on"}}
		all["metacopy"] = store.Options{Driver: "overlay", DriverOptions: []string{"overlay.mountopt=redirect_dir=on,metacopy=on"}}
	}
	return all
}

// openKind opens an empty store.
func openKind(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	dir := fastTemp(t)
	t.Cleanup(func() { unmountAll(t, dir) })
	o.Root, o.RunRoot, o.NoSync = filepath.Join(dir, "root"), filepath.Join(dir, "run"), true
	s, err := store.Open(o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// baseLayers are two layers: times with fractions, a directory that is there by implication, links, deletions.
func baseLayers(t *testing.T) [][]byte {
	return [][]byte{
		makeTar(t, file{name: "d/", kind: tar.TypeDir}, file{name: "d/sub/", kind: tar.TypeDir}, file{name: "d/sub/f", content: "content", nanos: 5e8},
			file{name: "big", content: strings.Repeat("large", 1000), uid: 7}, file{name: "gone", content: "x"}, file{name: "one", content: "y"},
			file{name: "two", kind: tar.TypeLink, link: "one"}, file{name: "below", content: "z"}, file{name: "dir/", kind: tar.TypeDir},
			file{name: "dir/old", content: "old"}, file{name: "same", content: "s", nanos: 25e7}, file{name: "frac/", kind: tar.TypeDir, nanos: 3e8}),
		makeTar(t, file{name: ".wh.below"}, file{name: "d/sub/above", content: "above"}, file{name: "dir/.wh..wh..opq"}, file{name: "dir/kept", content: "kept"},
			file{name: "caps", content: "c", pax: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}),
	}
}

// change makes the same changes in every store. rename: the store renames directories of the layers below.
func change(root string, rename bool) error {
	path := func(name string) string { return filepath.Join(root, name) }
	err := errors.Join(os.Chmod(path("big"), 0o600), os.Remove(path("gone")), os.WriteFile(path("new"), []byte("new"), 0o644), os.RemoveAll(path("dir")),
		os.Mkdir(path("dir"), 0o755), os.WriteFile(path("dir/fresh"), []byte("fresh"), 0o644), os.Symlink("new", path("link")), os.Link(path("new"), path("new2")),
		os.Lchown(path("new"), 3, 4), unix.Mkfifo(path("fifo"), 0o640))
	if rename {
		err = errors.Join(err, os.Rename(path("d"), path("e")))
	} else { // as programs do where that is EXDEV
		err = errors.Join(err, os.Mkdir(path("e"), 0o755), os.Mkdir(path("e/sub"), 0o755), os.Rename(path("d/sub/f"), path("e/sub/f")),
			os.Rename(path("d/sub/above"), path("e/sub/above")), os.RemoveAll(path("d")))
	}
	f, err2 := os.OpenFile(path("same"), os.O_RDWR, 0) // copied up, or not, and not changed
	if err2 == nil {
		f.Close()
	}
	when := time.Unix(1700000000, 0)
	for _, name := range []string{"new", "e/sub", "e", "dir/fresh", "dir", "fifo"} {
		err = errors.Join(err, os.Chtimes(path(name), when, when))
	}
	link := []unix.Timespec{{Sec: when.Unix()}, {Sec: when.Unix()}}
	return errors.Join(err, err2, os.Chmod(path("e"), 0o755), os.Chmod(path("e/sub"), 0o755), os.Chmod(path("dir"), 0o755),
		unix.UtimesNanoAt(unix.AT_FDCWD, path("link"), link, unix.AT_SYMLINK_NOFOLLOW))
}

// The same change to the same image makes the same layer and the same image, however the store keeps it: in an upper
// directory, in one with redirected directories and files whose content stayed below, as a whole tree, or behind a mount program. What nobody
// changed makes none. The container may be mounted meanwhile. Nothing is left mounted or counted.
func TestSameLayerInEveryStore(t *testing.T) {
	digests, images := map[string]string{}, map[string]string{}
	for name, o := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			s := openKind(t, o)
			img := putImage(t, &testStore{Store: s}, "base", baseLayers(t)...)
			c, err := s.NewContainer(ctx, img, store.ContainerOptions{Name: "c"})
			must(t, err)
			if r, err := commit.Container(ctx, s, c.ID, commit.Options{}); err != nil || !r.Layer.Empty {
				t.Errorf("nothing was changed: %+v, %v", r.Layer, err)
			}
			var diffID string
			must(t, c.WithMount(ctx, func(root string) error {
				if err := change(root, name != "overlay" && name != "fuse"); err != nil {
					return err
				}
				diffID = diffOf(t, s, c).DiffID.String()
				return nil
			}))
			created := time.Unix(1700000001, 0)
			r, err := commit.Container(ctx, s, c.ID, commit.Options{Names: []string{"new"}, Created: &created})
			must(t, err)
			if r.LayerExisted || r.Layer.Entries == 0 || r.Layer.DiffID.String() != diffID {
				t.Errorf("%+v; mounted, %s", r, diffID)
			}
			digests[name], images[name] = diffID, r.ImageID
			again, err := commit.Container(ctx, s, c.ID, commit.Options{Created: &created, Remove: true})
			must(t, err)
			if !again.LayerExisted || again.ImageID != r.ImageID || !again.Removed {
				t.Errorf("the second commit: %+v", again)
			}
			made, err := s.Resolve(ctx, "new", nil)
			must(t, err)
			must(t, s.ExportLayer(ctx, made.TopLayer, io.Discard))
			// A container of the image has the tree, and the layer is what lies between the two images.
			c2, err := s.NewContainer(ctx, made, store.ContainerOptions{})
			must(t, err)
			if b := diffOf(t, s, c2); !b.Empty {
				t.Errorf("a new container differs from its image: %+v", b)
			}
			layer, err := s.Layer(ctx, made.TopLayer)
			must(t, err)
			if b := diffOf(t, s, layer); b.DiffID.String() != diffID {
				t.Errorf("the layer's own change is %s: %v", b.DiffID, changes(t, s, layer))
			}
			if b := compared(t, s, img, c2); b.DiffID.String() != diffID {
				t.Errorf("between the images lies %s", b.DiffID)
			}
			problems, err := s.Check(ctx)
			if err != nil || len(problems) > 0 {
				t.Errorf("check: %+v, %v", problems, err)
			}
			must(t, c2.Remove(ctx))
			if path, n, err := c.Mounted(); n != 0 || kimg.ClassOf(err) != kimg.ErrNotFound {
				t.Errorf("mounted at %q: %d, %v", path, n, err)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(digests)) {
		if digests[name] != digests["overlay"] || images[name] != images["overlay"] {
			t.Errorf("%s makes layer %s, image %s; overlay %s, %s", name, digests[name], images[name], digests["overlay"], images["overlay"])
		}
	}
}

func diffOf(t *testing.T, s *store.Store, r store.Readable) layerdiff.Blob {
	t.Helper()
	stack, err := s.Stack(t.Context(), r, store.StackOptions{})
	must(t, err)
	return written(t, stack)
}

func compared(t *testing.T, s *store.Store, lower, upper store.Readable) layerdiff.Blob {
	t.Helper()
	stack, err := s.Compare(t.Context(), lower, upper, store.StackOptions{})
	must(t, err)
	return written(t, stack)
}

func written(t *testing.T, stack *store.Stack) layerdiff.Blob {
	t.Helper()
	defer stack.Close()
	b, err := layerdiff.Write(t.Context(), io.Discard, stack.Stack, layerdiff.Options{UIDs: stack.UIDs, GIDs: stack.GIDs})
	must(t, err)
	return b
}

func changes(t *testing.T, s *store.Store, r store.Readable) (all []string) {
	t.Helper()
	stack, err := s.Stack(t.Context(), r, store.StackOptions{})
	must(t, err)
	defer stack.Close()
	for c, err := range layerdiff.Changes(t.Context(), stack.Stack, layerdiff.Options{UIDs: stack.UIDs, GIDs: stack.GIDs}) {
		must(t, err)
		all = append(all, fmt.Sprint(c.Kind, " ", c.Path))
	}
	return all
}

// E8: Any two trees can be compared, an image without layers included; what cannot be is said by name.
func TestCompare(t *testing.T) {
	for name, o := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			s := openKind(t, o)
			ts := &testStore{Store: s}
			a := putImage(t, ts, "a", makeTar(t, file{name: "same", content: "1"}, file{name: "old", content: "2"}))
			b := putImage(t, ts, "b", makeTar(t, file{name: "same", content: "1"}), makeTar(t, file{name: "new", content: "3"}))
			none := putImage(t, ts, "none")
			scratch, err := s.NewContainer(ctx, nil, store.ContainerOptions{})
			must(t, err)
			layers, err := b.Layers(ctx)
			must(t, err)
			layer, err := s.Layer(ctx, layers[0].DiffID.String())
			must(t, err)
			if layer.ID != layers[0].ID {
				t.Errorf("%+v", layer)
			}
			for _, c := range []struct {
				lower, upper store.Readable
				want         string
			}{
				{a, b, "[A /new D /old]"}, {b, a, "[D /new A /old]"}, {a, a, "[]"}, {none, b, "[A /new A /same]"}, {b, none, "[D /new D /same]"},
				{scratch, a, "[A /old A /same]"}, {layer, b, "[A /new]"}, {none, none, "[]"}, {scratch, none, "[]"},
			} {
				stack, err := s.Compare(ctx, c.lower, c.upper, store.StackOptions{})
				must(t, err)
				got := []string{}
				for c, err := range layerdiff.Changes(ctx, stack.Stack, layerdiff.Options{}) {
					must(t, err)
					got = append(got, c.Kind.String()+" "+c.Path)
				}
				stack.Close()
				if fmt.Sprint(got) != c.want {
					t.Errorf("%v, want %s", got, c.want)
				}
			}
			if _, err := s.Layer(ctx, scratch.LayerID); kimg.ClassOf(err) != kimg.ErrNotFound {
				t.Errorf("a container's layer: %v", err)
			}
			m := []idtools.IDMap{{ContainerID: 0, HostID: 10000, Size: 1000}}
			mapped, err := s.NewContainer(ctx, a, store.ContainerOptions{UIDMap: m, GIDMap: m})
			must(t, err)
			must(t, mapped.WithMount(ctx, func(root string) error { // its own root makes and changes something
				return errors.Join(os.WriteFile(filepath.Join(root, "made"), nil, 0o644), os.Lchown(filepath.Join(root, "made"), 10005, 10006),
					os.Lchown(filepath.Join(root, "old"), 10001, 10000), os.Chtimes(filepath.Join(root, "made"), time.Unix(1, 0), time.Unix(1, 0)))
			}))
			if got := changes(t, s, mapped); fmt.Sprint(got) != "[A /made C /old]" {
				t.Errorf("mapped: %v", got)
			}
			blob := diffOf(t, s, mapped)
			if !slices.Equal(blob.UIDs, []uint32{1, 5}) || !slices.Equal(blob.GIDs, []uint32{0, 6}) {
				t.Errorf("owners %v, %v", blob.UIDs, blob.GIDs)
			}
			if got := compared(t, s, a, mapped); got.DiffID != blob.DiffID {
				t.Errorf("compared with its image: %+v", got)
			}
			// Of everything: the owners of the layers below count too.
			for lower, want := range map[store.Readable]string{nil: "[A /made A /old A /same]", store.Readable(b): "[A /made D /new A /old]", store.Readable(none): "[A /made A /old A /same]"} {
				stack, err := s.Compare(ctx, lower, mapped, store.StackOptions{})
				must(t, err)
				got := []string{}
				for c, err := range layerdiff.Changes(ctx, stack.Stack, layerdiff.Options{UIDs: stack.UIDs, GIDs: stack.GIDs}) {
					must(t, err)
					if c.Kind == layerdiff.Added && c.UID != map[string]uint32{"/made": 5, "/old": 1}[c.Path] {
						t.Errorf("%s belongs to %d", c.Path, c.UID)
					}
					got = append(got, c.Kind.String()+" "+c.Path)
				}
				stack.Close()
				if fmt.Sprint(got) != want {
					t.Errorf("mapped: %v, want %s", got, want)
				}
			}
			if path, n, err := mapped.Mounted(); n != 0 || err != nil {
				t.Errorf("mounted at %q: %d, %v", path, n, err)
			}
			squashed, err := commit.Container(ctx, s, mapped.ID, commit.Options{Squash: true})
			must(t, err)
			if b := compared(t, s, nil, mapped); b.DiffID != squashed.Layer.DiffID || b.Entries != 3 {
				t.Errorf("squashed to %+v, exported %+v", squashed.Layer, b)
			}
			r, err := commit.Container(ctx, s, mapped.ID, commit.Options{Names: []string{"unmapped"}})
			must(t, err)
			if r.Layer.DiffID != blob.DiffID {
				t.Errorf("committed: %+v", r.Layer)
			}
			if name != "fuse" { // it keeps the ids the container sees
				if _, err := s.Compare(ctx, mapped, a, store.StackOptions{}); kimg.ClassOf(err) != kimg.ErrUnsupported {
					t.Errorf("with other ids: %v", err)
				}
			}
		})
	}
}

// A mount program that cannot mount is named, and ends with whoever waits for it, and so does what it has started.
func TestMountProgramThatDoesNotMount(t *testing.T) {
	dir := t.TempDir()
	begun := filepath.Join(dir, "begun")
	must(t, unix.Mkfifo(begun, 0o600))
	for name, script := range map[string]string{"fails": "echo no such thing >&2; exit 1", "waits": "echo > '" + begun + "'; sleep 60; exit 1"} {
		program := filepath.Join(dir, name)
		must(t, os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
		s := openKind(t, store.Options{Driver: "overlay", DriverOptions: []string{"overlay.mount_program=" + program}})
		l, err := s.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "x"}))))
		must(t, err)
		layer, err := s.Layer(t.Context(), l.ID)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if name == "waits" {
			go func() {
				_, _ = os.ReadFile(begun)
				cancel()
			}()
		}
		start := time.Now()
		_, err = s.Stack(ctx, layer, store.StackOptions{})
		if took := time.Since(start); took > 50*time.Second {
			t.Errorf("%s: what it had started was waited for: %v", name, took)
		}
		want := map[string]kimg.Class{"fails": kimg.ErrUnsupported, "waits": kimg.ErrInterrupted}[name]
		if kimg.ClassOf(err) != want || name == "fails" && !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
