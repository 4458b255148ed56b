package store_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

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
