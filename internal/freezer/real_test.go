package freezer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// TestTheKernelsFreezers freezes a process of the test's own through each version that this host has.
func TestTheKernelsFreezers(t *testing.T) {
	testenv.Root(t)
	for _, v2 := range []bool{false, true} {
		root, err := mountPoint("/proc", v2)
		if err != nil {
			t.Fatal(err)
		}
		own := fmt.Sprintf("kimg-test-%d", os.Getpid())
		dir := filepath.Join(root, own)
		if root == "" {
			t.Logf("v2 %v: not on this host", v2)
			continue
		}
		if err := os.Mkdir(dir, 0o755); errors.Is(err, unix.EROFS) {
			t.Logf("v2 %v: read-only", v2)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = child.Process.Kill()
			_ = child.Wait() // killed
			for range 1000 { // the kernel takes its time
				if os.Remove(dir) == nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("%s stays", dir)
		})
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, child.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
		g, err := find("/proc", child.Process.Pid, own)
		if err != nil || g.dir != dir {
			t.Fatalf("v2 %v: %+v, %v", v2, g, err)
		}
		thaw, err := Freeze(t.Context(), child.Process.Pid, own)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Freeze(t.Context(), child.Process.Pid, own)
		if err != nil || again() != nil || !g.stopped() {
			t.Errorf("v2 %v: what was frozen is not any more (%v)", v2, err)
		}
		if err := thaw(); err != nil || g.stopped() {
			t.Errorf("v2 %v: it stays frozen (%v)", v2, err)
		}
		if v2 == strings.HasPrefix(g.control, "freezer") {
			t.Errorf("v2 %v: through %s", v2, g.control)
		}
	}
}
