package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/idtools"
	"github.com/containers/storage/pkg/mount"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

func TestContainerNames(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "f", "registry.example:5000/team/app:v1")
	for _, want := range []string{"app-working-container", "app-working-container-1", "app-working-container-2"} {
		if c, err := ts.NewContainer(ctx, img, store.ContainerOptions{}); err != nil || c.Name != want {
			t.Errorf("%+v, %v; want %s", c, err, want)
		}
	}
	if c, err := ts.NewContainer(ctx, nil, store.ContainerOptions{}); err != nil || c.Name != "working-container" || c.ImageID != "" {
		t.Errorf("%+v, %v", c, err)
	}
	all, err := ts.Containers(ctx)
	if err != nil || len(all) != 4 {
		t.Fatalf("%d, %v", len(all), err)
	}
	for _, c := range all {
		if got, err := ts.Container(ctx, c.ID[:12]); err != nil || got.ID != c.ID {
			t.Errorf("by prefix: %v", err)
		}
		if state, err := copydata.Load(ts.Dir(), c.ID); err != nil || state.Name() != c.Name || state.ImageID() != c.ImageID {
			t.Errorf("state: %+v, %v", state, err)
		}
		info, err := os.Stat(filepath.Join(ts.root, "overlay-containers", c.ID, "userdata", copydata.FileName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("state file: %v, %v", info, err)
		}
	}
	if _, err := ts.Container(ctx, ""); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
}

func TestFailedStateLeavesNoContainer(t *testing.T) {
	ts := prepare(t)
	before := ts.inventory(t)
	boom := errors.New("boom")
	_, err := ts.NewContainer(t.Context(), nil, store.ContainerOptions{Edit: func(*copydata.CopyData) error { return boom }})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
}

func TestForeignContainers(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	for name, metadata := range map[string]string{
		"podman": `{"image-name":"x","image-id":"y","name":"podman","created-at":1}`, "cri": `{"pod-name":"p","pod-id":"q","image-id":"y"}`, "buildah": "", "nobody": "rubbish",
	} {
		c, err := ts.Storage().CreateContainer("", []string{name}, "", "", metadata, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name == "buildah" {
			if err := ts.Storage().SetContainerDirectoryFile(c.ID, "buildah.json", []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tool := range map[string]string{"podman": store.ToolPodman, "cri": store.ToolCRIO, "buildah": store.ToolBuildah, "nobody": ""} {
		c, err := ts.Container(ctx, name)
		if err != nil || !c.Foreign || c.Tool != tool {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		err = c.Remove(ctx)
		if engine := tool == store.ToolPodman || tool == store.ToolCRIO; engine != errors.Is(err, kimg.ErrBusy) || !engine && err != nil {
			t.Errorf("removing %s: %v", name, err)
		}
	}
}

func TestDamageDoesNotBlockRemoval(t *testing.T) {
	damage := map[string]func(t *testing.T, ts *testStore, c *store.Container, state string){
		"state is rubbish": func(t *testing.T, _ *testStore, _ *store.Container, state string) { write(t, state, "\x00null") },
		"state is a fifo": func(t *testing.T, _ *testStore, _ *store.Container, state string) {
			must(t, os.Remove(state))
			must(t, unix.Mkfifo(state, 0o600))
		},
		"state is a link": func(t *testing.T, _ *testStore, _ *store.Container, state string) {
			must(t, os.Remove(state))
			must(t, os.Symlink("/etc/hostname", state))
		},
		"state is a directory": func(t *testing.T, _ *testStore, _ *store.Container, state string) {
			must(t, os.Remove(state))
			must(t, os.Mkdir(state, 0o700))
		},
		"layer is gone": func(t *testing.T, ts *testStore, c *store.Container, _ string) {
			must(t, os.RemoveAll(filepath.Join(ts.root, "overlay", c.LayerID)))
		},
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			ts := prepare(t)
			ctx := t.Context()
			c, err := ts.Container(ctx, "old")
			must(t, err)
			do(t, ts, c, filepath.Join(ts.root, "overlay-containers", c.ID, "userdata", copydata.FileName))
			if strings.HasPrefix(name, "state") {
				if _, err := copydata.Load(ts.Dir(), c.ID); err == nil {
					t.Error("a damaged state was loaded")
				}
			}
			if all, err := ts.Containers(ctx); err != nil || len(all) != 1 || all[0].Foreign {
				t.Errorf("listing: %+v, %v", all, err)
			}
			if problems, err := ts.Check(ctx); err != nil || len(problems) == 0 {
				t.Errorf("check: %+v, %v", problems, err)
			}
			if c, err = ts.Container(ctx, "old"); err != nil {
				t.Fatal(err)
			}
			if err := c.Remove(ctx); err != nil {
				t.Errorf("remove: %v", err)
			}
			if all, err := ts.Containers(ctx); err != nil || len(all) != 0 {
				t.Errorf("after: %+v, %v", all, err)
			}
		})
	}
}

func TestMountCounts(t *testing.T) {
	ts := prepare(t)
	ctx := t.Context()
	c, err := ts.Container(ctx, "old")
	must(t, err)
	path, err := c.Mount(ctx)
	must(t, err)
	if again, err := c.Mount(ctx); err != nil || again != path {
		t.Errorf("%s, %v", again, err)
	}
	if p, n, err := c.Mounted(); p != path || n != 2 || err != nil {
		t.Errorf("%s, %d, %v", p, n, err)
	}
	must(t, c.Unmount(ctx))
	if p, n, err := c.Mounted(); p != path || n != 1 || err != nil {
		t.Errorf("%s, %d, %v", p, n, err)
	}

	// The namespace that held the mount is gone; the count is not.
	must(t, mount.Unmount(path))
	if p, n, err := c.Mounted(); p != "" || n != 0 || err != nil {
		t.Errorf("a bare directory counts as mounted: %s, %d, %v", p, n, err)
	}
	if path, err = c.Mount(ctx); err != nil {
		t.Fatal(err)
	}
	if p, n, err := c.Mounted(); p != path || n != 1 || err != nil {
		t.Errorf("after healing: %s, %d, %v", p, n, err)
	}

	// Somebody wrote into the bare directory meanwhile: nothing is hidden.
	must(t, mount.Unmount(path))
	must(t, os.MkdirAll(path, 0o700))
	write(t, filepath.Join(path, "lost"), "precious")
	if _, err := c.Mount(ctx); !errors.Is(err, kimg.ErrDamaged) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	must(t, os.Remove(filepath.Join(path, "lost")))
	must(t, c.Unmount(ctx))
	must(t, c.Unmount(ctx)) // not mounted is fine

	boom := errors.New("boom")
	if err := c.WithMount(ctx, func(string) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	if p, n, err := c.Mounted(); p != "" || n != 0 || err != nil {
		t.Errorf("after WithMount: %s, %d, %v", p, n, err)
	}
	if _, err := c.Mount(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(ctx); err != nil { // as buildah: removing unmounts
		t.Error(err)
	}
}

func TestStackRefusesWhatAPowerCutMayHaveEmptied(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	rec, err := ts.Storage().CreateContainer("", []string{"v"}, "", "", "", &storage.ContainerOptions{Volatile: true})
	must(t, err)
	c, err := ts.Container(ctx, rec.ID)
	must(t, err)
	path, err := c.Mount(ctx)
	must(t, err)
	write(t, filepath.Join(path, "f"), "data")
	if _, err := c.Stack(ctx, store.StackOptions{}); err != nil {
		t.Errorf("while mounted: %v", err)
	}
	must(t, mount.Unmount(path)) // the machine goes down
	if _, err := c.Stack(ctx, store.StackOptions{}); !errors.Is(err, kimg.ErrDamaged) {
		t.Errorf("with the kernel's mark: %v", err)
	}
	if _, err := c.Stack(ctx, store.StackOptions{Force: true}); err != nil {
		t.Errorf("forced: %v", err)
	}
}

// TestIDMaps looks at what a mapped container's directories hold, with idmapped mounts and without.
func TestIDMaps(t *testing.T) {
	if mode := os.Getenv("KIMG_STORE_TEST_IDMAP"); mode == "" {
		for _, disable := range []string{"", "yes"} {
			t.Run("disabled="+disable, func(t *testing.T) {
				// The library asks the environment once per process.
				rerun(t, "TestIDMaps", "KIMG_STORE_TEST_IDMAP=run", "_CONTAINERS_OVERLAY_DISABLE_IDMAP="+disable)
			})
		}
		return
	}
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "base-file", "base")
	const shift, size = 10000, 50000 // an ordinary user has these too
	m := []idtools.IDMap{{ContainerID: 0, HostID: shift, Size: size}}
	c, err := ts.NewContainer(ctx, img, store.ContainerOptions{UIDMap: m, GIDMap: m})
	must(t, err)
	must(t, c.WithMount(ctx, func(root string) error {
		path := filepath.Join(root, "mine")
		write(t, path, "x")
		must(t, os.Lchown(filepath.Join(root, "base-file"), shift+7, shift+8))
		return os.Lchown(path, shift+1, shift+2)
	}))
	stack, err := c.Stack(ctx, store.StackOptions{})
	must(t, err)
	uids, gids := stack.UIDs, stack.GIDs
	want := layerdiff.IDRange{Container: 0, Host: shift, Size: size}
	if len(uids) != 1 || uids[0] != want || len(gids) != 1 || gids[0] != want {
		t.Errorf("maps %v, %v", uids, gids)
	}
	for name, want := range map[string][2]uint32{"mine": {1, 2}, "base-file": {7, 8}} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(stack.Upper, name), &st))
		uid, ok := uids.ToContainer(st.Uid)
		gid, ok2 := gids.ToContainer(st.Gid)
		if !ok || !ok2 || uid != want[0] || gid != want[1] {
			t.Errorf("%s: %d:%d on disk", name, st.Uid, st.Gid)
		}
	}
	var st unix.Stat_t
	for _, lower := range stack.Lowers {
		if err := unix.Lstat(filepath.Join(lower, "base-file"), &st); err == nil {
			break
		}
	}
	shifted := testenv.IsRoot() && os.Getenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP") == "" // others cannot mount with id maps
	if host := st.Uid == shift; host == shifted {
		t.Errorf("the layer below has owner %d", st.Uid)
	}
	// The layer of a commit goes on top of the image, whatever lies below the container.
	if base, err := c.Base(ctx); err != nil || base.TopLayer != img.TopLayer {
		t.Errorf("%+v, %v", base, err)
	}
	l, err := ts.AddLayer(ctx, img.TopLayer, store.TarSource(bytes.NewReader(makeTar(t, file{name: "n", uid: 5}))))
	must(t, err)
	if len(l.UIDMap) != 0 || l.Parent != img.TopLayer {
		t.Errorf("%+v", l)
	}
	must(t, unix.Lstat(filepath.Join(ts.root, "overlay", l.ID, "diff", "n"), &st))
	if st.Uid != 5 {
		t.Errorf("owner %d on disk", st.Uid)
	}
}

func TestStateDirectory(t *testing.T) {
	ts := prepare(t)
	c, err := ts.Container(t.Context(), "old")
	must(t, err)
	dir := ts.Dir()
	one, err := copydata.Load(dir, c.ID)
	must(t, err)
	two, err := copydata.Load(dir, c.ID)
	must(t, err)
	edit := func(s *copydata.Settings) error { s.CreatedBy = "x"; return nil }
	must(t, one.Update(edit))
	must(t, two.Update(edit))
	must(t, one.Save(dir))
	if err := two.Save(dir); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("a lost update: %v", err)
	}
	for _, bad := range []string{"", "..", "../x", "a/b", "."} {
		if _, err := dir.Read(c.ID, bad, 10); !errors.Is(err, kimg.ErrUnsafe) {
			t.Errorf("file %q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "..", "old", strings.Repeat("0", 64)} {
		if _, err := dir.Read(bad, copydata.FileName, 10); err == nil {
			t.Errorf("container %q was read", bad)
		}
	}
	if _, err := dir.Read(c.ID, copydata.FileName, 10); !errors.Is(err, kimg.ErrLimit) {
		t.Errorf("%v", err)
	}
}

func TestListingIsFast(t *testing.T) {
	ts := newStore(t)
	const n = 300
	for i := range n {
		_, err := ts.Storage().CreateImage("", []string{"localhost/i:" + time.Duration(i).String()}, "", "", nil)
		must(t, err)
	}
	testenv.Soon(t, "a list of many images came", 100*time.Millisecond, func() time.Duration {
		begin := time.Now()
		images, err := ts.Images(t.Context())
		if err != nil || len(images) != n {
			t.Fatalf("%d, %v", len(images), err)
		}
		return time.Since(begin)
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}
