package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/testenv"
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
