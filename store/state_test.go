package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

func (ts *testStore) stateFile(c *store.Container) string { return ts.userdata(c, copydata.FileName) }

func (ts *testStore) userdata(c *store.Container, file string) string {
	return filepath.Join(ts.root, "overlay-containers", c.ID, "userdata", file)
}

// setEnv edits the state of the container "old", as another process does.
func setEnv(ctx context.Context, s *store.Store, variable string) error {
	state, _, err := s.CopyData(ctx, "old")
	if err != nil {
		return err
	}
	err = state.Update(func(s *copydata.Settings) error { s.Image.Config.Env = []string{variable}; return nil })
	return errors.Join(err, state.Save(s.Dir()))
}

func init() {
	helpers["config"] = func(ctx context.Context, s *store.Store) error { return setEnv(ctx, s, "A=new") }
}

// TestStateKilledWhileSaved kills, or fails, a save at every place it passes: the state is the old one or the new one, never
// neither, and the next save works.
func TestStateKilledWhileSaved(t *testing.T) {
	reached := 0
	for _, point := range failpoint.Names() {
		if !strings.HasPrefix(point, "state.") && !strings.HasPrefix(point, "file.") {
			continue
		}
		for _, how := range []string{"kill", "error"} {
			ts := prepare(t)
			ctx := t.Context()
			must(t, setEnv(ctx, ts.Store, "A=old"))
			err, killed := ts.run(t, "config", point+"="+how)
			if !killed && err == nil {
				t.Errorf("%s=%s: the save does not pass there", point, how)
				continue
			}
			reached++
			state, _, err := ts.CopyData(ctx, "old")
			if err != nil {
				t.Errorf("%s=%s: neither: %v", point, how, err)
				continue
			}
			env, generation := state.Config().Docker().Config.Env[0], state.Generation()
			if !(env == "A=old" && generation == 2 || env == "A=new" && generation == 3) {
				t.Errorf("%s=%s: %s of generation %d", point, how, env, generation)
			}
			must(t, setEnv(ctx, ts.Store, "A=last"))
			if entries, err := os.ReadDir(filepath.Dir(ts.stateFile(mustContainer(t, ts, "old")))); err != nil || len(entries) != 1 {
				t.Errorf("%s=%s: the next save leaves %v, %v", point, how, entries, err)
			}
			if problems, err := ts.Check(ctx); err != nil || len(problems) > 0 {
				t.Errorf("check: %+v, %v", problems, err)
			}
		}
	}
	if reached != 10 {
		t.Errorf("%d places", reached)
	}
}

// TestStateConcurrentEditors lets processes edit one state at the same time: each save is made or refused as busy, and none
// is lost.
func TestStateConcurrentEditors(t *testing.T) {
	ts := prepare(t)
	ctx := t.Context()
	one, _, err := ts.CopyData(ctx, "old")
	must(t, err)
	two, _, err := ts.open(t).CopyData(ctx, "old")
	must(t, err)
	edit := func(c *copydata.CopyData, s *store.Store, v string) error {
		err := c.Update(func(s *copydata.Settings) error { s.CreatedBy = v; return nil })
		return errors.Join(err, c.Save(s.Dir()))
	}
	must(t, edit(one, ts.Store, "one"))
	if err := edit(two, ts.Store, "two"); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("the second editor: %v", err)
	}
	var wg sync.WaitGroup
	var made sync.Map
	for w := range 4 {
		s := ts.open(t)
		wg.Go(func() {
			for r := range 5 {
				for {
					c, _, err := s.CopyData(ctx, "old")
					if err == nil {
						err = c.Update(func(s *copydata.Settings) error {
							s.Image.Config.Env = append(s.Image.Config.Env, fmt.Sprintf("W%d_%d=1", w, r))
							return nil
						})
					}
					if err == nil {
						err = c.Save(s.Dir())
					}
					if err == nil {
						made.Store(c.Generation(), true)
						break
					}
					if !errors.Is(err, kimg.ErrBusy) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	c, _, err := ts.CopyData(ctx, "old")
	must(t, err)
	if n := len(c.Config().Docker().Config.Env); n != 20 || c.Generation() != 22 {
		t.Errorf("%d of 20 edits, generation %d", n, c.Generation())
	}
}

// TestStateFileIsNoFile puts everything but a state file where one should be: class state, nothing blocks, nothing is read
// through it, and the state can be rebuilt.
func TestStateFileIsNoFile(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	write(t, canary, "SECRET")
	for name, do := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(canary, path) },
		"dangling":  func(path string) error { return os.Symlink("/nothing", path) },
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "SECRET"), 0o700) },
		"socket": func(path string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err == nil {
				err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd))
			}
			return err
		},
		"100 MiB": func(path string) error {
			f, err := os.Create(path)
			if err == nil {
				err = errors.Join(f.Truncate(100<<20), f.Close())
			}
			return err
		},
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"null":    func(path string) error { return os.WriteFile(path, []byte("null"), 0o600) },
		"foreign": func(path string) error { return os.WriteFile(path, []byte(`{"type":"SECRET"}`), 0o600) },
		"nothing": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			ts := prepare(t)
			ctx := t.Context()
			c, err := ts.Container(ctx, "old")
			must(t, err)
			_, err = ts.NewContainer(ctx, nil, store.ContainerOptions{Name: "other"})
			must(t, err)
			path := ts.stateFile(c)
			if name == "socket" && len(path) > 100 {
				path = path[:0] // too long for a socket; the path below is relative
			}
			must(t, os.Remove(ts.stateFile(c)))
			if path == "" {
				t.Chdir(filepath.Dir(ts.stateFile(c)))
				path = copydata.FileName
			}
			must(t, do(path))
			_, _, err = ts.CopyData(ctx, "old")
			if !errors.Is(err, kimg.ErrState) || strings.Contains(err.Error(), "SECRET") || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%v", err)
			}
			// It blocks nobody else.
			if _, _, err := ts.CopyData(ctx, "other"); err != nil {
				t.Error(err)
			}
			if all, err := ts.Containers(ctx); err != nil || len(all) != 2 || all[0].Foreign || all[1].Foreign {
				t.Errorf("%v %v", all, err)
			}
			_, err = ts.RebuildState(ctx, "old", func(s *copydata.Settings) error { s.Image.OS = "nosuch"; return nil })
			if _, _, after := ts.CopyData(ctx, "old"); !errors.Is(err, kimg.ErrInvalid) || after == nil {
				t.Errorf("an edit that is refused rebuilt the state: %v", err)
			}
			state, err := ts.RebuildState(ctx, "old", nil)
			must(t, err)
			if state.Config().Edited() || state.Name() != "old" || state.Generation() != 1 {
				t.Errorf("%+v", state)
			}
			must(t, setEnv(ctx, ts.Store, "A=1"))
			_, err = os.Lstat(ts.stateFile(c) + ".damaged")
			if (err == nil) == (name == "nothing") {
				t.Errorf("what was there is kept: %v", err)
			}
			if data, err := os.ReadFile(canary); err != nil || string(data) != "SECRET" {
				t.Errorf("the canary: %q %v", data, err)
			}
			if problems, err := ts.Check(ctx); err != nil || len(problems) > 0 {
				t.Errorf("check: %+v, %v", problems, err)
			}
			must(t, c.Remove(ctx))
		})
	}
}

// TestRebuildStateOfSoundFile goes back to the image without losing track of the file's generation.
func TestRebuildStateOfSoundFile(t *testing.T) {
	ts := prepare(t)
	ctx := t.Context()
	must(t, setEnv(ctx, ts.Store, "A=1"))
	stale, _, err := ts.CopyData(ctx, "old")
	must(t, err)
	state, err := ts.RebuildState(ctx, "old", nil)
	must(t, err)
	if state.Config().Edited() || state.Generation() != 3 {
		t.Errorf("generation %d", state.Generation())
	}
	if err := stale.Save(ts.Dir()); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("a save of what was there before: %v", err)
	}
	c, err := ts.Container(ctx, "old")
	must(t, err)
	if _, err := os.Lstat(ts.stateFile(c) + ".damaged"); err == nil {
		t.Error("a sound file is set aside")
	}
}

// TestStateInAReadOnlyDirectory reads a state that cannot be saved.
func TestStateInAReadOnlyDirectory(t *testing.T) {
	testenv.Root(t)
	ts := prepare(t)
	c, err := ts.Container(t.Context(), "old")
	must(t, err)
	dir := filepath.Dir(ts.stateFile(c))
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	before, err := os.ReadFile(ts.stateFile(c))
	must(t, err)
	if err := setEnv(t.Context(), ts.Store, "A=1"); !errors.Is(err, kimg.ErrReadOnly) {
		t.Errorf("save: %v", err)
	}
	after, err := os.ReadFile(ts.stateFile(c))
	must(t, err)
	entries, err := os.ReadDir(dir)
	if err != nil || !bytes.Equal(before, after) || len(entries) != 1 {
		t.Errorf("something was written: %v %v", entries, err)
	}
	if _, _, err := ts.CopyData(t.Context(), "old"); err != nil {
		t.Error(err)
	}
}

// TestCopyDataOfSchema1Image makes a container of an image as it was pulled from an old registry.
func TestCopyDataOfSchema1Image(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	v := testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 2, Empty: 1, Signed: true})
	top, diffIDs := "", []digest.Digest{}
	for _, l := range v.Layers {
		added, err := ts.AddLayer(ctx, top, store.TarSource(bytes.NewReader(v.Blobs[l.Digest])))
		must(t, err)
		top, diffIDs = added.ID, append(diffIDs, added.UncompressedDigest)
	}
	rec, err := ts.Storage().CreateImage("", []string{"localhost/v1:latest"}, top, "", nil)
	must(t, err)
	d, err := convert.ManifestDigest(v.Manifest)
	must(t, err)
	must(t, ts.Storage().SetImageBigData(rec.ID, "manifest", v.Manifest, func([]byte) (digest.Digest, error) { return d, nil }))
	img, err := ts.Resolve(ctx, "v1", nil)
	must(t, err)
	_, err = ts.NewContainer(ctx, img, store.ContainerOptions{Name: "c"})
	must(t, err)
	state, _, err := ts.CopyData(ctx, "c")
	must(t, err)
	of, err := ts.ImageCopyData(ctx, "v1")
	must(t, err)
	for _, s := range []*copydata.CopyData{state, of} {
		if s.Source().Format != convert.DockerV2S1 || !bytes.Equal(s.Source().Manifest, v.Manifest) || fmt.Sprint(s.Config().OCI().RootFS.DiffIDs) != fmt.Sprint(diffIDs) {
			t.Errorf("%+v", s.Config().OCI())
		}
	}
	if err := of.Save(ts.Dir()); !errors.Is(err, kimg.ErrInvalid) {
		t.Errorf("the state of an image was saved: %v", err)
	}
}

// TestIndexAnnotationsReachTheState makes a container of an image that a manifest list names.
func TestIndexAnnotationsReachTheState(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "f", "one")
	index, err := json.Marshal(ispec.Index{
		MediaType: ispec.MediaTypeImageIndex, Annotations: map[string]string{"of": "index"},
		Manifests: []ispec.Descriptor{{MediaType: ispec.MediaTypeImageManifest, Digest: img.Digest, Size: 1, Platform: &ispec.Platform{OS: "linux", Architecture: "amd64"}}},
	})
	must(t, err)
	rec, err := ts.Storage().CreateImage("", []string{"localhost/list:latest"}, "", "", nil)
	must(t, err)
	must(t, ts.Storage().SetImageBigData(rec.ID, "manifest", index, func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }))
	must(t, ts.Storage().SetImageBigData(rec.ID, "instances.json", []byte("{}"), nil))
	chosen, err := ts.Resolve(ctx, "list", &ispec.Platform{OS: "linux", Architecture: "amd64"})
	must(t, err)
	_, err = ts.NewContainer(ctx, chosen, store.ContainerOptions{Name: "c"})
	must(t, err)
	state, _, err := ts.CopyData(ctx, "c")
	if err != nil || state.Annotations()["of"] != "index" {
		t.Errorf("%v %v", err, state)
	}
}

// TestCopyDataOfForeignContainers reads what other tools leave in a store.
func TestCopyDataOfForeignContainers(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "f", "base")
	const podman = `{"image-name":"asked/for:1","image-id":"x","name":"n","created-at":1}`
	for name, metadata := range map[string]string{"created": podman, "started": podman, "broken": podman, "built": "", "nobody": ""} {
		rec, err := ts.Storage().CreateContainer("", []string{name}, img.ID, "", metadata, nil)
		must(t, err)
		file, data := copydata.RuntimeFile, `{"process":{"args":["/x"],"cwd":"/"}}`
		switch name {
		case "broken":
			data = "SECRET"
		case "built":
			file, data = copydata.BuildahFile, fmt.Sprintf(`{"type":"buildah 0.0.1","image":"base","image-id":%q,"container-id":%q,
"ociv1":{"os":"linux","architecture":"amd64","config":{"User":"u"}},"docker":{"os":"linux","architecture":"amd64","config":{"User":"u"}}}`, img.ID, rec.ID)
		case "started":
		default:
			continue
		}
		must(t, ts.Storage().SetContainerDirectoryFile(rec.ID, file, []byte(data)))
	}
	before := ts.inventory(t)
	for name, want := range map[string]docker.Config{"created": {}, "started": {Cmd: docker.Strings{"/x"}}, "built": {User: "u"}, "nobody": {}} {
		state, report, err := ts.CopyData(ctx, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := state.Config().Docker().Config
		if fmt.Sprint(*got) != fmt.Sprint(want) || (report == nil) != (name == "built") {
			t.Errorf("%s: %+v, %v", name, got, report)
		}
		if asked := state.ImageName(); name == "created" && asked != "asked/for:1" || name == "nobody" && asked != "localhost/base:latest" {
			t.Errorf("%s: of image %s", name, asked)
		}
	}
	if _, _, err := ts.CopyData(ctx, "broken"); !errors.Is(err, kimg.ErrState) || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
	if _, err := ts.RebuildState(ctx, "built", nil); !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("reading wrote:\n%s", diff(before, got))
	}
	// A state of ours beside podman's files makes the container not ours to remove.
	state, _, err := ts.CopyData(ctx, "started")
	must(t, err)
	must(t, state.Save(ts.Dir()))
	must(t, os.Remove(ts.userdata(mustContainer(t, ts, "started"), copydata.RuntimeFile)))
	state, _, err = ts.CopyData(ctx, "started")
	if err != nil || state.Config().Docker().Config.Cmd[0] != "/x" {
		t.Error(err)
	}
	if err := mustContainer(t, ts, "started").Remove(ctx); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("remove: %v", err)
	}
}

func mustContainer(t *testing.T, ts *testStore, name string) *store.Container {
	t.Helper()
	c, err := ts.Container(t.Context(), name)
	must(t, err)
	return c
}

// TestRunning finds the process of a container by the engine's pid file.
func TestRunning(t *testing.T) {
	ts := newStore(t)
	img := ts.addImage(t, "f", "base")
	rec, err := ts.Storage().CreateContainer("", []string{"p"}, img.ID, "", `{"image-id":"x","name":"n"}`, nil)
	must(t, err)
	dir, err := ts.Storage().ContainerRunDirectory(rec.ID)
	must(t, err)
	c := mustContainer(t, ts, "p")
	for text, want := range map[string]int{"": 0, fmt.Sprint(os.Getpid()): os.Getpid(), fmt.Sprintln(os.Getpid()): os.Getpid(), "0": 0, "-1": 0, "x": 0, "4194305": 0} {
		write(t, filepath.Join(dir, "pidfile"), text)
		if pid, err := c.Running(); err != nil || pid != want {
			t.Errorf("%q: %d, %v", text, pid, err)
		}
	}
	must(t, os.Remove(filepath.Join(dir, "pidfile")))
	if pid, err := c.Running(); pid != 0 || err != nil {
		t.Error(pid, err)
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "pidfile")))
	if _, err := c.Running(); !errors.Is(err, kimg.ErrUnsafe) {
		t.Error(err)
	}
}
