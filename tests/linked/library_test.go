package linked

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/lockfile"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/lab"
)

// wrapped is a store as a tool has it. This test program never calls reexec.Init.
func wrapped(t *testing.T, driver string) (*store.Store, storage.Store) {
	t.Helper()
	testenv.Root(t)
	dir := lab.TempDir(t)
	own, err := storage.GetStore(storage.StoreOptions{GraphRoot: filepath.Join(dir, "g"), RunRoot: filepath.Join(dir, "r"), GraphDriverName: driver})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := own.Shutdown(true); err != nil {
			t.Error(err)
		}
	})
	return store.Wrap(own), own
}

// TestWithoutReexec: reexec.Init is needed on vfs, for everything that makes layers or containers; on overlay for nothing.
func TestWithoutReexec(t *testing.T) {
	for driver, want := range map[string]kimg.Class{"overlay": "", "vfs": kimg.ErrInternal} {
		t.Run(driver, func(t *testing.T) {
			st, own := wrapped(t, driver)
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			if err := w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if _, err := st.AddLayer(t.Context(), "", store.TarSource(&b)); kimg.ClassOf(err) != want {
				t.Errorf("%v", err)
			}
			if layers, err := own.Layers(); err != nil || want != "" && len(layers) > 0 {
				t.Errorf("%d layers are left, %v", len(layers), err)
			}
			if err := work(t.Context(), st, "box"); kimg.ClassOf(err) != want {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestGoroutinesShareAStore: one Store, eight of them at work, and the tool itself beside them.
func TestGoroutinesShareAStore(t *testing.T) {
	st, own := wrapped(t, "overlay")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 2 {
				if err := work(t.Context(), st, fmt.Sprintf("box%d-%d", i, j)); err != nil {
					t.Error(err)
				}
				if _, err := own.Images(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	images, err := st.Images(t.Context())
	if err != nil || len(images) != 16 {
		t.Errorf("%d images, %v", len(images), err)
	}
	if problems, err := st.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
}

// work makes an image by way of a container, which goes. The same name makes the same layer, whenever it is.
func work(ctx context.Context, st *store.Store, name string) error {
	c, err := st.NewContainer(ctx, nil, store.ContainerOptions{Name: name})
	if err != nil {
		return err
	}
	err = c.WithMount(ctx, func(root string) error {
		file, then := filepath.Join(root, "name"), time.Unix(1_700_000_000, 0)
		return errors.Join(os.WriteFile(file, []byte(name), 0o644), os.Chtimes(file, then, then), os.Chtimes(root, then, then))
	})
	if err != nil {
		return err
	}
	if _, err := commit.Container(ctx, st, c.ID, commit.Options{Names: []string{name}}); err != nil {
		return err
	}
	return c.Remove(ctx)
}

// TestLockWaits: a wait for the library's locks cannot be cancelled, but for the one of a layer's digest. When the lock is
// there, the call says what happened: it was done, or was interrupted and nothing is left.
func TestLockWaits(t *testing.T) {
	st, own := wrapped(t, "overlay")
	if err := work(t.Context(), st, "base"); err != nil {
		t.Fatal(err)
	}
	lock, err := lockfile.GetLockFile(filepath.Join(own.GraphRoot(), "overlay-layers", "layers.lock"))
	if err != nil {
		t.Fatal(err)
	}
	lock.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := st.NewContainer(ctx, nil, store.ContainerOptions{Name: "late"})
		done <- err
	}()
	stacks, waits := make([]byte, 1<<20), regexp.MustCompile(`\[sync\.(RW)?Mutex\.`)
	for begin := time.Now(); !waits.Match(stacks[:runtime.Stack(stacks, true)]) && len(done) == 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Error("neither waits nor ends")
			break
		}
	}
	cancel()
	select {
	case err := <-done:
		t.Errorf("did not wait for the lock: %v", err)
		done <- err
	case <-time.After(300 * time.Millisecond):
	}
	lock.Unlock()
	err = <-done
	list, lerr := own.Containers()
	if lerr != nil || (err == nil) != (len(list) == 1) || err != nil && kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Errorf("%v; %v, %v", err, list, lerr)
	}
	for _, c := range list {
		if err := own.DeleteContainer(c.ID); err != nil {
			t.Fatal(err)
		}
	}

	layers, err := own.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%v, %v", layers, err)
	}
	l, err := own.GetDigestLock(digest.Digest(layers[0].UncompressedDigest))
	if err != nil {
		t.Fatal(err)
	}
	l.Lock()
	defer l.Unlock()
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := work(ctx, st, "base"); kimg.ClassOf(err) != kimg.ErrInterrupted || time.Since(begin) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}
