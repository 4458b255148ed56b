package userns

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/kimg/kimg"
)

// What env(1) and shells say about a command that did not run.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// Command runs a user's command, found in PATH, on our standard streams, and returns its exit status: 128+n if signal n ended
// it, 127 if there is no such command, 126 if it cannot be executed; with the last two the error says why. Signals are passed on
// as by [Run], and the command dies with us. A nil env means ours.
func Command(argv, env []string) (exit int, err error) {
	if len(argv) == 0 {
		return exitNotFound, kimg.Errorf(kimg.ErrInvalid, "", "no command")
	}
	runtime.LockOSThread() // for the death signal
	defer runtime.UnlockOSThread()
	relay := startRelay()
	defer relay.stop()

	cmd := exec.Command(argv[0], argv[1:]...)
	if errors.Is(cmd.Err, exec.ErrDot) {
		cmd.Err = nil // a user who has "." in PATH meant it
	}
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return exitNotFound, kimg.Errorf(kimg.ErrNotFound, argv[0], "%w", err)
		}
		return exitCannotRun, kimg.Wrap(argv[0], err)
	}
	return relay.wait(cmd.Process)
}
