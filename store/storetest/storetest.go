// Package storetest is the conformance suite of stores: one table of what every store must do, whichever driver keeps it and whoever
// opened it. A program that hands its own storage.Store to kimg runs it with that in its tests.
//
// Layers of vfs stores are unpacked in a re-executed child: TestMain calls reexec.Init of containers/storage first.
package storetest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/mount"
	"github.com/containers/storage/types"

	"github.com/kimg/kimg/store"
)

// Kind is a way of having a store.
type Kind struct {
	Driver  string // overlay or vfs
	Wrapped bool   // opened by somebody else
}

// String returns the name of the kind, for subtests.
func (k Kind) String() string {
	if k.Wrapped {
		return k.Driver + "-wrapped"
	}
	return k.Driver + "-opened"
}

// Kinds lists them all.
func Kinds() []Kind {
	return []Kind{{"overlay", false}, {"overlay", true}, {"vfs", false}, {"vfs", true}}
}

// Each runs fn as a subtest on an empty store of each kind.
func Each(t *testing.T, fn func(t *testing.T, s *store.Store)) {
	for _, k := range Kinds() {
		t.Run(k.String(), func(t *testing.T) { fn(t, k.New(t)) })
	}
}

// New makes an empty store of the kind, which goes away with the test.
func (k Kind) New(t testing.TB) *store.Store {
	t.Helper()
	// In memory where the machine has that, as the library syncs each record; with the name of the test's own temporary directory
	// in its own, by which what is left in it is found.
	dir, err := os.MkdirTemp("/dev/shm", filepath.Base(os.TempDir())+"-")
	if err != nil {
		dir, err = os.MkdirTemp("", "kimg-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	root, run := filepath.Join(dir, "g"), filepath.Join(dir, "r")
	var s *store.Store
	if k.Wrapped {
		var st storage.Store
		st, err = storage.GetStore(types.StoreOptions{GraphRoot: root, RunRoot: run, GraphDriverName: k.Driver})
		s = store.Wrap(st)
	} else {
		s, err = store.Open(store.Options{Root: root, RunRoot: run, Driver: k.Driver, DriverOptions: []string{}, NoSync: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if mounts := Mounts(t, s); len(mounts) > 0 {
			t.Errorf("left mounted: %s", mounts)
		}
		if _, err := s.Storage().Shutdown(true); err != nil {
			t.Error(err)
		}
		s.Storage().Free()
	})
	return s
}

// Mounts lists what is mounted in the store, in this mount namespace.
func Mounts(t testing.TB, s *store.Store) []string {
	t.Helper()
	infos, err := mount.GetMounts()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, i := range infos {
		if rel, err := filepath.Rel(s.Storage().GraphRoot(), i.Mountpoint); err == nil && filepath.IsLocal(rel) && strings.HasSuffix(rel, "merged") {
			all = append(all, rel)
		}
	}
	return all
}

// Inventory is everything a failed change must leave as it was: ids, names, layers, documents, mounts, and every directory of
// the store, but for what is kept for later: locks and empty places.
func Inventory(t testing.TB, s *store.Store) string {
	t.Helper()
	st := s.Storage()
	var lines []string
	add := func(what ...any) { lines = append(lines, fmt.Sprintln(what...)) }
	images, err := st.Images()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		add("image", i.ID, i.Names, i.TopLayer, i.BigDataDigests[storage.ImageDigestBigDataKey])
	}
	containers, err := st.Containers()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers { // leases too
		add("container", c.ID, c.Names, c.LayerID)
	}
	layers, err := st.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		add("layer", l.ID, l.Parent, l.MountCount)
	}
	for _, m := range Mounts(t, s) {
		add("mount", m)
	}
	for _, dir := range []string{"overlay", "overlay/l", "overlay/staging", "overlay-layers", "overlay-images", "overlay-containers", "vfs/dir", "vfs-layers", "vfs-images", "vfs-containers", "kimg"} {
		entries, err := os.ReadDir(filepath.Join(st.GraphRoot(), dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			n := e.Name()
			empty := strings.HasSuffix(n, ".json") && bytes.Equal(bytes.TrimSpace(read(t, filepath.Join(st.GraphRoot(), dir, n))), []byte("[]"))
			if !strings.HasSuffix(n, ".lock") && !slices.Contains([]string{"tempdirs", "tmp", "staging"}, n) && !empty {
				add(dir, n)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
