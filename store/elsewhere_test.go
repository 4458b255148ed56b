package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// helpers are what other processes do beside a test.
var helpers = map[string]func(ctx context.Context, s *store.Store) error{
	// big adds a layer of many files to a store of driver vfs, and is killed when the first one is there.
	"big": func(ctx context.Context, s *store.Store) error {
		_, err := s.AddLayer(deadly{ctx, filepath.Join(s.Info().Root, "vfs/dir/*/file-*")}, "", store.TarSource(bytes.NewReader(bigTar(childTB{}))))
		return err
	},
	// hold takes a lease, says so, and waits for the end of its input.
	"hold": func(ctx context.Context, s *store.Store) error {
		l, err := s.Lease(ctx, store.LeaseOptions{Image: "base"})
		if err != nil {
			return err
		}
		fmt.Println(l.ID())
		_, err = io.Copy(io.Discard, os.Stdin)
		return errors.Join(err, l.Release(ctx))
	},
	// mount mounts the container "old", says so, and waits for the end of its input.
	"mount": func(ctx context.Context, s *store.Store) error {
		c, err := s.Container(ctx, "old")
		if err != nil {
			return err
		}
		return c.WithMount(ctx, func(string) error {
			fmt.Println("mounted")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	},
}

// TestMountedElsewhere: a container that is mounted in another mount namespace is neither removed nor shared with an image:
// what is written there goes to the same files.
func TestMountedElsewhere(t *testing.T) {
	ts := prepare(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"=mount", envRoot+"="+filepath.Dir(ts.root))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "mounted\n" {
		t.Fatal(line, err)
	}
	before := ts.shape(t)
	c, err := ts.Container(t.Context(), "old")
	if err != nil {
		t.Fatal(err)
	}
	if path, n, err := c.Mounted(); path != "" || n != 0 || err != nil {
		t.Errorf("mounted here: %s %d %v", path, n, err)
	}
	if err := c.Remove(t.Context()); kimg.ClassOf(err) != kimg.ErrBusy {
		t.Error("removed under the feet of another process:", err)
	}
	if _, err := commit.Container(t.Context(), ts.Store, c.ID, commit.Options{Remove: true}); kimg.ClassOf(err) != kimg.ErrBusy {
		t.Error("committed and removed:", err)
	}
	if got := ts.shape(t); got != before {
		t.Errorf("something happened all the same:\n%s", diff(before, got))
	}
	if _, err := commit.Container(t.Context(), ts.Store, c.ID, commit.Options{}); err != nil {
		t.Error("a commit that only reads:", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Error("not mounted any more:", err)
	}
}
