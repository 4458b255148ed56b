package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/kimg/kimg"
)

// Exit statuses for a program that could not be run, as env has them.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// runChild runs a program on the standard streams and passes its status on: nil for 0, 128 and the number for a signal.
// Signals go to the program as long as it runs; it does not outlive this process.
func (a *app) runChild(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	if err := a.stdout.Flush(); err != nil {
		return kimg.Wrap("standard output", err)
	}
	runtime.LockOSThread() // the kernel sends the death signal when the thread ends that started the child
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	release, err := a.sig.start(cmd)
	if err != nil {
		return err
	}
	defer release()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return kimg.Wrap(cmd.Args[0], err)
	}
	return childStatus(cmd.ProcessState)
}

func childStatus(state *os.ProcessState) error {
	code := state.ExitCode()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	if code == 0 {
		return nil
	}
	return status(code)
}

// notRun is a program that could not be started. The error line is printed, and the exit code is that of env.
type notRun struct {
	error
	code int
}

func (e notRun) Unwrap() error { return e.error }

func childNotRun(name string, err error) error {
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
		err = &kimg.Error{Class: kimg.ErrNotFound, Err: err}
	}
	return notRun{kimg.Wrap(name, err), code}
}
