//go:build powercut

// Package powercut takes the power away while kimg works, and kills it at every place that is named for that. Run it as
// root with make powercut.
package powercut

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

// ext4Shutdown is EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32).
const (
	ext4Shutdown = 0x8004587d
	noLogFlush   = 2 // what is in memory is lost, also the journal
)

// device is an ext4 file system whose power can be cut.
type device struct {
	t          testing.TB
	image, dir string
	mounted    bool
}

func newDevice(t testing.TB, megabytes int64) *device {
	t.Helper()
	testenv.Root(t)
	testenv.Need(t, "mkfs.ext4", "mount", "umount")
	top := lab.TempDir(t)
	d := &device{t: t, image: filepath.Join(top, "disk"), dir: filepath.Join(top, "mnt")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	lab.Must(t, nil, "mkfs.ext4", "-q", "-F", d.image)
	t.Cleanup(d.unmount)
	d.mount()
	return d
}

func (d *device) mount() {
	d.t.Helper()
	if out := lab.Run(d.t, nil, "mount", "-o", "loop", d.image, d.dir); out.Code != 0 {
		testenv.Skip(d.t, "needs a loop device: %s", out.Stderr)
	}
	d.mounted = true
}

func (d *device) unmount() {
	if !d.mounted {
		return
	}
	d.mounted = false
	root := filepath.Join(d.dir, "root")
	for _, sub := range []string{"overlay"} { // the storage library mounts it on itself
		lab.Run(d.t, nil, "umount", "-q", filepath.Join(root, sub))
	}
	if out := lab.Run(d.t, nil, "umount", d.dir); out.Code != 0 {
		lab.Run(d.t, nil, "umount", "-l", d.dir)
		d.t.Errorf("unmount: %s", out.Stderr)
	}
}

// cut takes the power away: whatever is not on the disk now never will be.
func (d *device) cut() {
	d.t.Helper()
	dir, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), ext4Shutdown, noLogFlush); err != nil {
		d.t.Fatalf("EXT4_IOC_SHUTDOWN: %v", err)
	}
}

// reboot mounts the disk again, as after a start of the machine: the store's runroot is empty then.
func (d *device) reboot(s *lab.Store) {
	d.t.Helper()
	d.unmount()
	lab.Run(d.t, nil, "umount", "-q", s.RunRoot)
	if err := os.RemoveAll(s.RunRoot); err != nil {
		d.t.Fatal(err)
	}
	d.mount()
}

// sync makes everything durable that was written so far.
func (d *device) sync() {
	d.t.Helper()
	dir, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		d.t.Fatal(err)
	}
}
