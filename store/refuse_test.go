package store_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/storage"
	"github.com/containers/storage/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// E1, U2: a store that lacks what kimg needs is refused by name, and nothing is made.
func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare string // directory that is there already
		driver  string
		options []string
		text    string
	}{
		"a second driver":   {"vfs-images", "overlay", nil, "beside it"},
		"btrfs":             {"btrfs-images", "", nil, "btrfs"},
		"btrfs by layers":   {"btrfs-layers", "", nil, "btrfs"},
		"zfs":               {"zfs-images", "zfs", nil, "zfs"},
		"another":           {"", "devicemapper", nil, "unknown storage driver"},
		"quota":             {"", "overlay", []string{"overlay.size=1G"}, "overlay.size"},
		"quota, short":      {"", "overlay", []string{".inodes=10"}, "overlay.inodes"},
		"beside overlay":    {"overlay-images", "vfs", nil, "beside it"},
		"quota of overlay2": {"", "overlay2", []string{"overlay2.size=10M"}, "overlay.size"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if c.prepare != "" {
				if err := os.Mkdir(filepath.Join(root, c.prepare), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			_, err := store.Open(store.Options{Root: root, RunRoot: t.TempDir(), Driver: c.driver, DriverOptions: c.options})
			if !errors.Is(err, kimg.ErrUnsupported) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			entries, err := os.ReadDir(root)
			if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != c.prepare {
				t.Errorf("something was made: %v, %v", entries, err)
			}
		})
	}
}

// E2: options that the driver does not have only warn; what is no option at all is refused.
func TestUnknownOptions(t *testing.T) {
	for _, c := range []struct{ driver, option, warns string }{
		{"overlay", "overlay.nonsense=1", "overlay.nonsense"}, {"overlay", "vfs.ignore_chown_errors=true", "vfs.ignore_chown_errors"},
		{"overlay", ".Mountopt=nodev", ""}, {"overlay2", "overlay2.ignore_chown_errors=true", ""}, {"vfs", "vfs.nonsense=1", "vfs.nonsense"},
		{"vfs", "overlay.mount_program=/x", "overlay.mount_program"}, {"vfs", ".ignore_chown_errors=true", ""},
	} {
		var log bytes.Buffer
		o := store.Options{
			Root: t.TempDir(), RunRoot: t.TempDir(), Driver: c.driver, DriverOptions: []string{c.option},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}
		s, err := store.Open(o)
		if err != nil {
			t.Errorf("%s: %v", c.option, err)
			continue
		}
		_, err = s.Storage().Shutdown(true)
		must(t, err)
		if strings.Contains(log.String(), "option="+c.warns) != (c.warns != "") {
			t.Errorf("%s: %q", c.option, &log)
		}
		o.DriverOptions = []string{"overlay.mountopt"}
		if s, err := store.Open(o); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%+v %v", s, err)
		}
	}
}

func TestVfsIsReadOnly(t *testing.T) {
	o := store.Options{Root: t.TempDir(), RunRoot: t.TempDir(), Driver: "vfs", DriverOptions: []string{}}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Images(t.Context()); err != nil {
		t.Error(err)
	}
	data := makeTar(t, file{name: "x", content: "y"})
	l, _, err := s.Storage().PutLayer("", "", nil, "", false, nil, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.ExportLayer(t.Context(), l.ID, &out); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("export: %v, %d bytes", err, out.Len())
	}
	c, err := s.NewContainer(t.Context(), nil, store.ContainerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stack, err := c.Stack(t.Context(), store.StackOptions{}); err != nil || !stack.Plain {
		t.Errorf("stack: %+v, %v", stack, err)
	}
	if i := s.Info(); !i.CanCommit || i.Driver != "vfs" || i.Why != "" {
		t.Errorf("%+v", i)
	}
	s.Close()
	o.Driver = "" // an existing store decides, whatever the configuration says
	again, err := store.Open(o)
	if err != nil || again.Storage().GraphDriverName() != "vfs" {
		t.Fatalf("%v", err)
	}
	again.Close()
}

// Options under which the directories do not hold what the tree shows are refused by name, whatever would read or write a layer.
func TestOptionsThatMakeLayersUnreadable(t *testing.T) {
	for option, name := range map[string]string{"overlay.force_mask=shared": "force_mask", "overlay.use_composefs=true": "use_composefs"} {
		t.Run(name, func(t *testing.T) {
			plain := newStore(t)
			img := plain.addImage(t, "f", "img")
			made, err := plain.NewContainer(t.Context(), img, store.ContainerOptions{Name: "c"})
			must(t, err)
			must(t, plain.Close())
			ts := &testStore{root: plain.root, runRoot: plain.runRoot}
			s, err := store.Open(store.Options{Root: ts.root, RunRoot: ts.runRoot, Driver: "overlay", DriverOptions: []string{option}, NoSync: true})
			if name == "use_composefs" && err != nil && strings.Contains(err.Error(), "composefs") {
				return // the machine has no composefs: the store does not even open
			}
			must(t, err)
			defer s.Close()
			if i := s.Info(); i.CanCommit || !strings.Contains(i.Why, name) {
				t.Errorf("%+v", i)
			}
			refused := func(what string, err error) {
				t.Helper()
				if kimg.ClassOf(err) != kimg.ErrUnsupported || !strings.Contains(err.Error(), name) {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err = s.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "x"}))))
			refused("add layer", err)
			c, err := s.Container(t.Context(), made.ID)
			must(t, err)
			_, err = c.Stack(t.Context(), store.StackOptions{})
			refused("diff", err)
			_, err = s.Compare(t.Context(), c, c, store.StackOptions{})
			refused("compare", err)
			var out bytes.Buffer
			if err := s.ExportLayer(t.Context(), img.TopLayer, &out); err != nil || out.Len() == 0 {
				t.Errorf("export: %v", err)
			}
		})
	}
}

func TestErrorsOfTheLibraryHaveAClass(t *testing.T) {
	ts := prepare(t)
	ctx := t.Context()
	if _, err := ts.Resolve(ctx, "nothing", nil); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
	if err := ts.ExportLayer(ctx, "nothing", new(bytes.Buffer)); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
	if _, err := ts.Container(ctx, "nothing"); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
	if _, err := ts.DeleteImage(ctx, "base", true); !errors.Is(err, kimg.ErrBusy) || !strings.Contains(err.Error(), "old") {
		t.Error(err)
	}
	base, err := ts.Resolve(ctx, "base", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ts.NewContainer(ctx, base, store.ContainerOptions{Name: "old"}); !errors.Is(err, kimg.ErrExists) {
		t.Error(err)
	}
	if _, err := ts.NewContainer(ctx, base, store.ContainerOptions{Name: "../x"}); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
	if err := addLayer(ctx, ts.Store, strings.Repeat("0", 64), "x"); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
	if _, err := ts.PutImage(ctx, store.ImageRecord{}); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
	if _, err := ts.PutImage(ctx, record(t, "x", strings.Repeat("0", 64), nil)); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
}

func TestWrapKeepsItsHandsOff(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() { unmountAll(t, dir) })
	st, err := storage.GetStore(types.StoreOptions{GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), GraphDriverName: "overlay"})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Free()
	s := store.Wrap(st)
	if s.Recovers() || s.Storage() != st {
		t.Error("a wrapped store recovers, or is another one")
	}
	if err := importImage(t.Context(), s, "base", "one", "two"); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), "base", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewContainer(t.Context(), img, store.ContainerOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "root", "kimg")); !os.IsNotExist(err) {
		t.Errorf("files of ours in a wrapped store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := st.Images(); err != nil {
		t.Errorf("closing a wrapped store closed the store: %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() { unmountAll(t, filepath.Dir(dir)) })
	if err := mountTmpfs(dir, "size=4m"); err != nil {
		t.Fatal(err)
	}
	ts := &testStore{root: filepath.Join(dir, "root"), runRoot: filepath.Join(dir, "run")}
	ts.Store = ts.open(t)
	ts.addImage(t, "small", "small")
	before := ts.inventory(t)
	big := makeTar(t, file{name: "big", content: strings.Repeat("x", 8<<20)})
	_, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(big)))
	if !errors.Is(err, kimg.ErrNoSpace) {
		t.Errorf("%v", err)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
	if err := addLayer(t.Context(), ts.Store, "", "fits"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestRoomComesBack: what was prepared in vain takes no room, whether it failed or was given up.
func TestRoomComesBack(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() { unmountAll(t, filepath.Dir(dir)) })
	must(t, mountTmpfs(dir, "size=8m"))
	for _, driver := range []string{"overlay", "vfs"} {
		ts := &testStore{root: filepath.Join(dir, driver), runRoot: filepath.Join(dir, "run-"+driver)}
		var err error
		ts.Store, err = store.Open(store.Options{Root: ts.root, RunRoot: ts.runRoot, Driver: driver, DriverOptions: []string{}})
		must(t, err)
		big := makeTar(t, file{name: "big", content: strings.Repeat("x", 5<<20)})
		err = ts.Change(t.Context(), "test", func(ctx context.Context, tx *store.Tx) error {
			for range 2 {
				if _, err := tx.Prepare(ctx, store.TarSource(bytes.NewReader(big[:5<<20]))); !errors.Is(err, kimg.ErrIntegrity) {
					t.Errorf("%s: cut short: %v", driver, err)
				}
				l, err := tx.Prepare(ctx, store.TarSource(bytes.NewReader(big)))
				if err != nil {
					return err
				}
				tx.Discard(ctx, l)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", driver, err)
		}
		_, err = ts.Storage().Shutdown(true)
		must(t, err)
	}
}
