package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containers/storage"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// E5: many threads and processes make one layer, once.
func TestOneLayerFromManySides(t *testing.T) {
	ts := newStore(t)
	var wg sync.WaitGroup
	for i := range 8 {
		s := ts.Store
		if i%2 == 0 {
			s = ts.open(t)
		}
		wg.Go(func() {
			if err := addLayer(t.Context(), s, "", "second"); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err, killed := ts.run(t, "layer", ""); err != nil || killed {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	layers, err := ts.Storage().Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	if err := ts.ExportLayer(t.Context(), layers[0].ID, io.Discard); err != nil {
		t.Error(err)
	}
	checkNothingStaged(t, ts)
}

func TestImportAndDeleteSideBySide(t *testing.T) {
	ts := newStore(t)
	var wg sync.WaitGroup
	for range 4 {
		s := ts.open(t)
		wg.Go(func() {
			for range 10 {
				if err := importImage(t.Context(), s, "shared", "one", "two"); err != nil {
					t.Error("import:", err)
				}
				_, err := s.DeleteImage(t.Context(), "shared", true)
				if c := kimg.ClassOf(err); err != nil && c != kimg.ErrNotFound {
					t.Error("delete:", err)
				}
			}
		})
	}
	wg.Wait()
	layers, err := ts.Storage().Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if err := ts.ExportLayer(t.Context(), l.ID, io.Discard); err != nil {
			t.Error(err)
		}
	}
	checkNothingStaged(t, ts)
	if problems, err := ts.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
}

// blockingSource stages nothing until it is let go.
type blockingSource struct {
	store.LayerSource
	begun, release chan struct{}
}

func (b blockingSource) Stage(ctx context.Context, dir string) (store.Staged, error) {
	close(b.begun)
	select {
	case <-b.release:
	case <-ctx.Done():
		return store.Staged{}, context.Cause(ctx)
	}
	return b.LayerSource.Stage(ctx, dir)
}

func newBlockingSource(t *testing.T) blockingSource {
	return blockingSource{store.TarSource(bytes.NewReader(makeTar(t, file{name: "slow"}))), make(chan struct{}), make(chan struct{})}
}

func TestNobodyWaitsWhileALayerIsStaged(t *testing.T) {
	ts := prepare(t)
	src := newBlockingSource(t)
	done := make(chan error, 1)
	go func() { _, err := ts.AddLayer(t.Context(), "", src); done <- err }()
	<-src.begun
	begin := time.Now()
	if _, err := ts.Images(t.Context()); err != nil {
		t.Error(err)
	}
	if err, _ := ts.run(t, "from", ""); err != nil { // another process reads and writes
		t.Error(err)
	}
	if err, _ := ts.run(t, "import", ""); err != nil { // and opens the store, which must not take the stage for a dead one
		t.Error(err)
	}
	other := ts.open(t) // so does this process
	if _, err := other.Images(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("others waited %v", took)
	}
	close(src.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	checkNothingStaged(t, ts)
}

func TestCancelWhileStaging(t *testing.T) {
	ts := newStore(t)
	before := ts.inventory(t)
	src := newBlockingSource(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-src.begun; cancel() }()
	begin := time.Now()
	_, err := ts.AddLayer(ctx, "", src)
	if kimg.ClassOf(err) != kimg.ErrInterrupted || time.Since(begin) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
}

// TestCancelWhileReading cancels an import from a stream that never gives anything.
func TestCancelWhileReading(t *testing.T) {
	ts := newStore(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	if _, err := w.Write(makeTar(t, file{name: "x", content: "y"})[:600]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	begin := time.Now()
	_, err = ts.AddLayer(ctx, "", store.TarSource(r))
	if kimg.ClassOf(err) != kimg.ErrInterrupted || time.Since(begin) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	checkNothingStaged(t, ts)
}

func TestEveryStepIsTakenBack(t *testing.T) {
	ts := prepare(t)
	before := ts.inventory(t)
	boom := errors.New("boom")
	undone := 0
	err := ts.Change(t.Context(), "test", func(ctx context.Context, tx *store.Tx) error {
		l, err := tx.StageLayer(ctx, "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "new"}))))
		if err != nil {
			return err
		}
		tx.PutImage(record(t, "new", l.ID, []string{"base", "another"}, l.DiffID))
		tx.Undo(func(context.Context) error { undone++; return nil })
		tx.Record("mine", func(context.Context) error {
			if img, err := ts.Resolve(ctx, "another", nil); err != nil || img.TopLayer != l.ID {
				t.Errorf("recorded: %+v, %v", img, err)
			}
			return boom
		})
		return nil
	})
	if !errors.Is(err, boom) || undone != 1 {
		t.Errorf("%v, undone %d times", err, undone)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
}

// TestOpenLocksNothingYoung: whoever opens the store looks for what dead processes left, and never takes the lock of a file that its
// maker is about to lock.
func TestOpenLocksNothingYoung(t *testing.T) {
	ts := prepare(t)
	f, err := os.Create(filepath.Join(ts.root, "kimg", ".new-1"))
	must(t, err)
	defer f.Close()
	young := time.Now().Add(time.Hour) // however long this takes
	must(t, os.Chtimes(f.Name(), young, young))
	ctx, stop := context.WithCancel(t.Context())
	var opener sync.WaitGroup
	opener.Go(func() {
		for range 10 {
			ts.open(t)
		}
		stop()
	})
	for ctx.Err() == nil {
		for _, kind := range []int16{unix.F_WRLCK, unix.F_UNLCK} {
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind}); err != nil {
				t.Fatal(err)
			}
		}
	}
	opener.Wait()
}

// TestStagingSweptAtOnce: podman 4 may empty the directory of all staging directories before a layer's is known to be ours. The layer is
// made, or the change may be begun again.
func TestStagingSweptAtOnce(t *testing.T) {
	ts := prepare(t)
	ctx, stop := context.WithCancel(t.Context())
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for ctx.Err() == nil {
			all, _ := filepath.Glob(filepath.Join(ts.root, "overlay", "staging", "*"))
			for _, dir := range all {
				_ = os.RemoveAll(dir)
			}
		}
	})
	disturbed := 0
	for n := 0; n < 300 || disturbed == 0 && n < 30_000; n++ { // with one processor it may take more
		if err := addLayer(t.Context(), ts.Store, "", fmt.Sprint(n)); errors.Is(err, storage.ErrLayerUnknown) && errors.Is(err, kimg.ErrBusy) {
			disturbed++
		} else if err != nil {
			t.Error(err)
		}
	}
	stop()
	sweeper.Wait()
	if disturbed == 0 {
		t.Error("no layer was disturbed")
	}
}

// TestPanicOfTheDigestLock: the library also panics when it waits for a lock in a goroutine of ours.
func TestPanicOfTheDigestLock(t *testing.T) {
	ts := newStore(t)
	img := ts.addImage(t, "f", "base")
	layers, err := img.Layers(t.Context())
	must(t, err)
	lock := filepath.Join(ts.runRoot, "overlay-locks", layers[0].DiffID.String())
	must(t, errors.Join(os.Remove(lock), os.Mkdir(lock, 0o700)))
	if _, err := ts.DeleteImage(t.Context(), "base", false); !errors.Is(err, syscall.EISDIR) {
		t.Error(err)
	}
	must(t, addLayer(t.Context(), ts.Store, "", "another"))
}

// TestPanicIsNotWaitedFor: the library panics with its lock held. Nothing of it is called again.
func TestPanicIsNotWaitedFor(t *testing.T) {
	ts := prepare(t)
	undone := false
	err := ts.Change(t.Context(), "test", func(_ context.Context, tx *store.Tx) error {
		tx.Undo(func(context.Context) error { undone = true; return nil })
		tx.Record("mine", func(context.Context) error { panic(&os.PathError{Op: "open", Path: "lock", Err: syscall.EROFS}) })
		return nil
	})
	if !errors.Is(err, kimg.ErrReadOnly) || undone {
		t.Errorf("%v, undone: %v", err, undone)
	}
}

func checkNothingStaged(t *testing.T, ts *testStore) {
	t.Helper()
	for _, dir := range []string{"overlay/staging", "kimg"} {
		entries, err := os.ReadDir(filepath.Join(ts.root, dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".lock") {
				t.Errorf("left behind: %s/%s", dir, e.Name())
			}
		}
	}
}

// TestOpenBesideStaging opens the store, which clears what dead processes staged, all the time while living ones begin to stage.
func TestOpenBesideStaging(t *testing.T) {
	ts := newStore(t)
	ctx, stop := context.WithCancel(t.Context())
	var openers, makers sync.WaitGroup
	for range 2 {
		openers.Go(func() {
			for ctx.Err() == nil {
				ts.open(t)
			}
		})
	}
	for i := range 4 {
		makers.Go(func() {
			for n := range 25 {
				if err := addLayer(t.Context(), ts.Store, "", string(rune('a'+i))+string(rune('a'+n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	makers.Wait()
	stop()
	openers.Wait()
}

// TestOpenAndCloseSideBySide: the library keeps a list of its open stores, which one goroutine must not change while another reads it.
// The race detector tells (make race).
func TestOpenAndCloseSideBySide(t *testing.T) {
	dir := fastTemp(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 4 {
				at := filepath.Join(dir, string(rune('a'+i)))
				s, err := store.Open(store.Options{Root: at + "/g", RunRoot: at + "/r", Driver: "vfs", DriverOptions: []string{}, NoSync: true})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
