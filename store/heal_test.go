package store_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/store"
)

// lose takes a container's mount away behind the library's back, as the end of a namespace does.
func lose(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

func mountedContainer(t *testing.T, ts *testStore, times int) (*store.Container, string) {
	t.Helper()
	c, err := ts.NewContainer(t.Context(), ts.addImage(t, "f", ""), store.ContainerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var path string
	for range times {
		if path, err = c.Mount(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return c, path
}

func TestLostMountIsForgotten(t *testing.T) {
	ts := newStore(t)
	for _, times := range []int{1, 3} {
		c, path := mountedContainer(t, ts, times)
		lose(t, path)
		// The loss is found by another process as well, which read the counts before.
		again, err := ts.open(t).Container(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if p, n, err := again.Mounted(); p != "" || n != 0 || err != nil {
			t.Errorf("lost, but %q, %d, %v", p, n, err)
		}
		if err := again.Unmount(t.Context()); err != nil {
			t.Error(err)
		}
		if path, err = c.Mount(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(path, "f")); err != nil {
			t.Error("a bare directory was handed out:", err)
		}
		if _, n, err := c.Mounted(); n != 1 || err != nil {
			t.Errorf("%d users counted after one mount, %v", n, err)
		}
		if err := again.Unmount(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p, _, _ := c.Mounted(); p != "" {
			t.Error("still mounted at", p)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Several find the loss at once: each gets a mount, and no one's is taken away by another's clearing.
func TestLostMountFoundByMany(t *testing.T) {
	ts := newStore(t)
	for range 5 {
		c, path := mountedContainer(t, ts, 3)
		lose(t, path)
		const n = 4
		var all sync.WaitGroup
		for range n {
			mine, err := ts.open(t).Container(t.Context(), c.ID)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				path, err := mine.Mount(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(5 * time.Millisecond)
				if _, err := os.Stat(filepath.Join(path, "f")); err != nil {
					t.Error("the mount was taken away:", err)
				}
			})
		}
		all.Wait()
		if _, users, err := c.Mounted(); users != n || err != nil {
			t.Errorf("%d users counted, want %d, %v", users, n, err)
		}
		for range n {
			if err := c.Unmount(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if p, _, _ := c.Mounted(); p != "" {
			t.Error("still mounted at", p)
		}
	}
}

func TestFilesInABareDirectoryAreKept(t *testing.T) {
	ts := newStore(t)
	c, path := mountedContainer(t, ts, 1)
	lose(t, path)
	precious := filepath.Join(path, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mount(t.Context()); !errors.Is(err, kimg.ErrDamaged) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := os.Remove(precious); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mount(t.Context()); err != nil {
		t.Error(err)
	}
}

// What another namespace has mounted is not lost, and is not mounted a second time.
func TestMountOfAnotherNamespaceIsRespected(t *testing.T) {
	testenv.Need(t, "unshare", "sh")
	ts := newStore(t)
	c, path := mountedContainer(t, ts, 1)
	other := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read x")
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	lose(t, path)
	if _, err := c.Mount(t.Context()); !errors.Is(err, kimg.ErrBusy) {
		t.Error("mounted twice:", err)
	}
	if err := c.Unmount(t.Context()); !errors.Is(err, kimg.ErrBusy) {
		t.Error("unmounted what is elsewhere:", err)
	}
	stdin.Close()
	_ = other.Wait()
	if _, err := c.Mount(t.Context()); err != nil {
		t.Error(err)
	}
}
