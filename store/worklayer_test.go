package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

func init() {
	helpers["build"] = func(ctx context.Context, s *store.Store) error {
		var h *store.Hold
		var top string
		for _, name := range []string{"one", "two"} {
			err := s.Change(ctx, "layer", func(ctx context.Context, tx *store.Tx) error {
				l, err := tx.StageLayer(ctx, top, store.TarSource(bytes.NewReader(makeTar(nil, file{name: name}))))
				if err == nil {
					top, h = l.ID, tx.Hold(l, h)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		if _, err := s.NewWorkLayer(ctx, top, h); err != nil {
			return err
		}
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

// TestKilledBuild: what a killed build held, mounts included, is removed when the store is opened again; what a living one holds is not.
func TestKilledBuild(t *testing.T) {
	ts := prepare(t)
	ctx := t.Context()
	before := ts.inventory(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"=build", envRoot+"="+strings.TrimSuffix(ts.root, "/root"))
	if out, err := cmd.CombinedOutput(); err == nil || len(out) > 0 {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	if ts.inventory(t) == before {
		t.Fatal("the child has left nothing")
	}
	living, err := ts.NewWorkLayer(ctx, "", nil)
	must(t, err)
	again := ts.open(t) // recovers
	if _, err := os.Stat(living.Root); err != nil {
		t.Error(err)
	}
	must(t, living.Release(ctx))
	must(t, living.Release(ctx))
	if after := ts.inventory(t); after != before {
		t.Errorf("a killed build has left:\n%s", diff(before, after))
	}
	if problems, err := again.Check(ctx); err != nil || len(problems) > 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
}

// TestWorkLayerDirs: what is below a layer of a build is what the driver mounts there, at each step, and is looked at each time.
func TestWorkLayerDirs(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	top := ts.addImage(t, "f", "base").TopLayer
	driver, err := ts.Storage().GraphDriver()
	must(t, err)
	for i := range 4 {
		w, err := ts.NewWorkLayer(ctx, top, nil)
		must(t, err)
		stack, err := w.Stack(ctx)
		must(t, err)
		stack.Close()
		dirs, err := driver.Metadata(w.ID)
		must(t, err)
		if got := strings.Join(stack.Lowers, ":"); stack.Upper != dirs["UpperDir"] || got != dirs["LowerDir"] {
			t.Errorf("%d: %s on %s, want %v", i, stack.Upper, got, dirs)
		}
		if i == 3 {
			dir := stack.Lowers[1]
			must(t, os.Rename(dir, dir+"-"))
			if _, err := w.Stack(ctx); kimg.ClassOf(err) != kimg.ErrDamaged {
				t.Error(err)
			}
			must(t, os.Rename(dir+"-", dir))
		}
		must(t, w.Release(ctx))
		l, err := ts.AddLayer(ctx, top, store.TarSource(bytes.NewReader(makeTar(t, file{name: fmt.Sprint("step", i)}))))
		must(t, err)
		top = l.ID
	}
}
