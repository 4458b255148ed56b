// Package testenv says what a test needs from the machine it runs on. A test that cannot run here is skipped with the
// reason; with CI=true in the environment it fails instead, so that a test never disappears in silence.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Environment variables the test commands of the Makefile set.
const (
	envCI       = "CI"                 // true: a skip is a failure
	envRootless = "KIMG_TEST_ROOTLESS" // 1: the same tests also run as root elsewhere, in the same CI run
)

// CI reports whether a skip is a failure.
func CI() bool { return os.Getenv(envCI) == "true" }

// Skip skips the test because of the machine: the reason says what is missing. With CI=true the test fails.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	end(t, CI(), fmt.Sprintf(format, args...))
}

// end ends a test that cannot run here, which is a failure where it must.
func end(t testing.TB, must bool, reason string) {
	t.Helper()
	if must {
		t.Fatalf("may not be skipped with CI=true: %s", reason)
	}
	t.Skipf("%s", reason)
}

// Need skips the test unless every named program is in PATH.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Skip(t, "needs the program %s", p)
		}
	}
}

// FUSE skips the test unless fuse-overlayfs can mount here, and returns where it is.
func FUSE(t testing.TB) string {
	t.Helper()
	Need(t, "fuse-overlayfs")
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		Skip(t, "needs FUSE: %v", err)
	}
	dev.Close()
	path, _ := exec.LookPath("fuse-overlayfs")
	return path
}

// Root leaves the test to root. The run of the suite as an ordinary user (make test-rootless) leaves such tests to the run
// as root, also with CI=true; without such a run the test is skipped as [Skip] does.
func Root(t testing.TB) {
	t.Helper()
	if !IsRoot() {
		otherHalf(t, os.Getenv(envRootless) == "1", "needs real root")
	}
}

// Ordinary leaves the test to an ordinary user: what it tests exists for ordinary users only. CI runs the suite as both.
func Ordinary(t testing.TB) {
	t.Helper()
	if IsRoot() {
		otherHalf(t, true, "needs an ordinary user")
	}
}

// otherHalf ends a test that is for another user: the suite's other run has it.
func otherHalf(t testing.TB, exists bool, reason string) {
	t.Helper()
	if exists {
		reason += ": runs in the suite's other half"
	}
	end(t, CI() && !exists, reason)
}

// IsRoot reports whether this process is root of the machine and not merely of a user namespace.
func IsRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	m, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(m))
	return err == nil && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}
