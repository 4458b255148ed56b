//go:build powercut

// Package powercut takes the power away while kimg works, and kills it at every place that is named for that. Run it as
// root with make powercut.
package powercut

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// envPrivate marks a process that runs in a mount namespace of its own.
const envPrivate = "KIMG_POWERCUT_PRIVATE"

func TestMain(m *testing.M) {
	lab.Main()
	if testenv.IsRoot() && os.Getenv(envPrivate) == "" {
		os.Exit(alone())
	}
	os.Exit(m.Run())
}

// alone runs this program again in a mount namespace of its own. A namespace that some other process makes from the
// machine's while a disk is mounted there would keep the disk busy, and a cut disk that is busy cannot come back.
func alone() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envPrivate+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // and private, as Go does it
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return lab.ExitCode(cmd.ProcessState)
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
	lab.Run(d.t, nil, "umount", "-q", filepath.Join(d.dir, "root", "overlay")) // the storage library mounts it on itself
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
