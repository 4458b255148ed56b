package store_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// TestLease covers B7, B19, B32 and X6: an image is held for a while, by somebody, for something.
func TestLease(t *testing.T) {
	ts := prepare(t)
	ctx := t.Context()
	img, err := ts.Resolve(ctx, "unused", nil)
	must(t, err)
	before := ts.inventory(t)
	l, err := ts.Lease(ctx, store.LeaseOptions{Image: "unused", Owner: "me", Purpose: "a build"})
	must(t, err)
	all, err := ts.Leases(ctx)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	i := all[0]
	if left := time.Until(i.Expires); i.ID != l.ID() || i.ImageID != img.ID || i.Owner != "me" || i.Purpose != "a build" || i.State != store.LeaseActive || i.Detached || left > time.Hour || left < 59*time.Minute {
		t.Errorf("%+v", i)
	}
	// It is no container to anybody.
	if cs, err := ts.Containers(ctx); err != nil || len(cs) != 1 {
		t.Errorf("%+v, %v", cs, err)
	}
	for ref, class := range map[string]kimg.Class{i.ID: kimg.ErrInvalid, i.Name: kimg.ErrInvalid, i.ID[:8]: kimg.ErrNotFound} {
		if c, err := ts.Container(ctx, ref); !errors.Is(err, class) {
			t.Errorf("%s: %+v, %v", ref, c, err)
		}
	}
	// Nor does it make ambiguous how another container's ID begins.
	like := i.ID[:20] + strings.Repeat("0", 44)
	_, err = ts.Storage().CreateContainer(like, nil, "", "", "", nil)
	must(t, err)
	if c, err := ts.Container(ctx, i.ID[:20]); err != nil || c.ID != like {
		t.Errorf("%+v, %v", c, err)
	}
	must(t, ts.Storage().DeleteContainer(like))
	if problems, err := ts.Check(ctx); err != nil || len(problems) != 0 {
		t.Errorf("%+v, %v", problems, err)
	}
	if _, err := ts.DeleteImage(ctx, "unused", true); !errors.Is(err, kimg.ErrBusy) || !strings.Contains(err.Error(), i.Name) {
		t.Errorf("%v", err)
	}
	if _, err := ts.RemoveLease(ctx, i.ID, false); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("one that is held: %v", err)
	}
	must(t, l.Renew(ctx, 2*time.Hour))
	if all, err = ts.Leases(ctx); err != nil || time.Until(all[0].Expires) < 119*time.Minute || all[0].Owner != "me" {
		t.Errorf("%+v, %v", all, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	must(t, l.Release(cancelled))
	must(t, l.Release(ctx))
	if err := l.Renew(ctx, 0); !errors.Is(err, kimg.ErrNotFound) {
		t.Errorf("renewing what was released: %v", err)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
}

func TestLeaseRefusals(t *testing.T) {
	ts := newStore(t)
	ts.addImage(t, "f", "base")
	before := ts.inventory(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		o     store.LeaseOptions
		class kimg.Class
	}{
		"no image":  {t.Context(), store.LeaseOptions{Image: "nosuch"}, kimg.ErrNotFound},
		"time":      {t.Context(), store.LeaseOptions{Image: "base", TTL: -1}, kimg.ErrInvalid},
		"for ever":  {t.Context(), store.LeaseOptions{Image: "base", TTL: 1<<63 - 1}, kimg.ErrInvalid},
		"owner":     {t.Context(), store.LeaseOptions{Image: "base", Owner: strings.Repeat("x", 257)}, kimg.ErrLimit},
		"cancelled": {cancelled, store.LeaseOptions{Image: "base"}, kimg.ErrInterrupted},
	} {
		if l, err := ts.Lease(c.ctx, c.o); l != nil || kimg.ClassOf(err) != c.class {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
}

// TestLostLease: podman rmi -f, or prune --external, removes the record of a lease.
func TestLostLease(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	ts.addImage(t, "f", "base")
	l, err := ts.Lease(ctx, store.LeaseOptions{Image: "base"})
	must(t, err)
	must(t, ts.Storage().DeleteContainer(l.ID()))
	if err := l.Renew(ctx, 0); !errors.Is(err, kimg.ErrNotFound) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("%v", err)
	}
	must(t, l.Release(ctx))
}

// TestLeasesEnd: of a wrapped store too, a lease ends with its holder, or by its time.
func TestLeasesEnd(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "f", "base")
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), envChild+"=hold", envRoot+"="+filepath.Dir(ts.root))
	in, err := holder.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	if _, err := io.ReadFull(out, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	state := func() store.LeaseState {
		t.Helper()
		all, err := ts.Leases(ctx)
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].State
	}
	if got := state(); got != store.LeaseActive {
		t.Errorf("held: %s", got)
	}
	must(t, holder.Process.Kill())
	_ = holder.Wait()
	if got := state(); got != store.LeaseDead {
		t.Errorf("its holder was killed: %s", got)
	}
	short, err := store.Wrap(ts.Storage()).Lease(ctx, store.LeaseOptions{Image: img.ID, TTL: time.Second})
	must(t, err)
	time.Sleep(time.Second)
	all, err := ts.Leases(ctx)
	must(t, err)
	for _, l := range all {
		if l.State == store.LeaseActive {
			t.Errorf("%+v", l)
		}
	}
	must(t, short.Renew(ctx, time.Second)) // nobody has removed it
	time.Sleep(time.Second)
	if _, err := ts.DeleteImage(ctx, "base", false); err != nil { // what is over holds nothing
		t.Error(err)
	}
	if err := short.Renew(ctx, 0); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
}
