//go:build kimg_failpoints

package failpoint

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// Enabled tells whether this build can fail on purpose.
const Enabled = true

// Here does what the environment variable KIMG_FAILPOINT says about the place: "NAME=kill" ends the process with
// SIGKILL, "NAME=exit" ends it with status 99 without running deferred calls, "NAME=error" fails with class io,
// "NAME=stop" stops it until it is told to continue, "NAME=tell" writes the name as a line to standard error. Several settings are separated by commas. A
// name that is not listed and a setting that says nothing else are class internal.
func Here(name string) error {
	if !slices.Contains(names[:], name) {
		return kimg.Errorf(kimg.ErrInternal, "", "failpoint %s is not listed", name)
	}
	for setting := range strings.SplitSeq(os.Getenv("KIMG_FAILPOINT"), ",") {
		where, what, _ := strings.Cut(setting, "=")
		if where != name {
			continue
		}
		if err := act(name, what); err != nil {
			return err
		}
	}
	return nil
}

func act(name, what string) error {
	switch what {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal arrives before this goroutine runs on
	case "exit":
		os.Exit(99)
	case "tell":
		_, err := os.Stderr.WriteString(name + "\n")
		return err
	case "error":
		return kimg.Errorf(kimg.ErrIO, "", "failpoint %s", name)
	case "stop":
		runtime.LockOSThread() // of all threads this one stops at once
		defer runtime.UnlockOSThread()
		return unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	}
	return kimg.Errorf(kimg.ErrInternal, "", "failpoint %s: cannot do %s", name, what)
}
