package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// grace is how long a command may take to undo its work after a signal. Waiting for a lock of the store cannot be
// cancelled; then the process ends all the same, and the next command clears what it left.
const grace = 1800 * time.Millisecond

// signals turns SIGINT and SIGTERM into the cancellation of a context. A second signal, or one second too many,
// ends the process at once.
type signals struct {
	cancel context.CancelFunc
	got    chan os.Signal
	first  atomic.Int32 // number of the first signal, 0 for none

	mu    sync.Mutex // held while a signal is dealt with, and while a program starts
	muted bool
	child *os.Process // the program that gets them
}

// newSignals starts watching, until the process ends: given back, a signal that comes late would be its end.
func newSignals(parent context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancel(parent)
	s := &signals{cancel: cancel, got: make(chan os.Signal, 4)}
	signal.Notify(s.got, syscall.SIGINT, syscall.SIGTERM)
	go s.watch()
	return ctx, s
}

func (s *signals) watch() {
	for sig := range s.got {
		number, _ := sig.(syscall.Signal)
		s.take(number)
	}
}

func (s *signals) take(number syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.child != nil:
		// The program that kimg runs decides; a terminal has sent it the interrupt already.
		if number != syscall.SIGINT || !terminal(os.Stdin) {
			_ = s.child.Signal(number)
		}
	case s.muted || number != syscall.SIGINT && number != syscall.SIGTERM:
	case !s.first.CompareAndSwap(0, int32(number)):
		os.Exit(s.exitCode())
	default:
		s.cancel()
		time.AfterFunc(grace, func() { os.Exit(s.exitCode()) })
	}
}

// exitCode is 128 plus the number of the signal that interrupted the command, 0 when none did.
func (s *signals) exitCode() int {
	if s == nil {
		return 0
	}
	if n := s.first.Load(); n != 0 {
		return 128 + int(n)
	}
	return 0
}

// start starts a program and hands signals on to it instead of cancelling, until the returned function is called. Signals that would
// end this process without a chance to unmount go to the program as well. After an interrupt nothing is started.
func (s *signals) start(cmd *exec.Cmd) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first.Load() != 0 {
		return nil, kimg.Wrap(cmd.Args[0], context.Canceled)
	}
	if err := cmd.Start(); err != nil {
		return nil, childNotRun(cmd.Args[0], err)
	}
	s.child = cmd.Process
	signal.Notify(s.got, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.child = nil
	}, nil
}

// mute leaves signals to whoever else watches them, until the process ends. After an interrupt it is too late for that: it is the error.
func (s *signals) mute() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.muted = true; s.first.Load() != 0 {
		return context.Canceled
	}
	return nil
}

// terminal reports whether a file is a terminal.
func terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
