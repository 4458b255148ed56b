package lab

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
)

// Disk mounts a new file system of a kind, ext4, xfs or tmpfs, until the test ends, and returns a directory on it. Only root
// may mount one; for an ordinary user tmpfs is the machine's shared memory.
func Disk(t testing.TB, kind string) string {
	t.Helper()
	if kind == "tmpfs" && !testenv.IsRoot() {
		dir, err := os.MkdirTemp("/dev/shm", "kimg-lab-")
		if err != nil {
			testenv.Skip(t, "no shared memory: %v", err)
		}
		t.Cleanup(func() { Run(t, nil, Unshared("rm", "-rf", dir)...) })
		return dir
	}
	testenv.Root(t)
	top := TempDir(t)
	dir, image := filepath.Join(top, "mnt"), filepath.Join(top, "disk")
	err := os.Mkdir(dir, 0o755)
	mount := []string{"mount", "-t", "tmpfs", "tmpfs", dir}
	if kind != "tmpfs" {
		if err == nil {
			err = os.WriteFile(image, nil, 0o600)
		}
		if err == nil {
			err = os.Truncate(image, 400<<20) // xfs has no smaller ones
		}
		mount = []string{"mount", "-t", kind, "-o", "loop", image, dir}
	}
	if err != nil {
		t.Fatal(err)
	}
	if kind != "tmpfs" {
		testenv.Need(t, "mkfs."+kind)
		Must(t, nil, "mkfs."+kind, "-q", image)
	}
	if out := Run(t, nil, mount...); out.Code != 0 {
		testenv.Skip(t, "needs a loop device and %s: %s", kind, out.Stderr)
	}
	t.Cleanup(func() {
		if out := Run(t, nil, "umount", dir); out.Code != 0 {
			Run(t, nil, "umount", "-l", dir)
			t.Errorf("unmount: %s", out.Stderr)
		}
	})
	return dir
}
