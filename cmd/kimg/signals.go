package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long a command may take to undo its work after a signal. Waiting for a lock of the store cannot be
// cancelled; then the process ends all the same, and the next command clears what it left.
const grace = 1800 * time.Millisecond

// signals turns SIGINT and SIGTERM into the cancellation of a context. A second signal, or one second too many,
// ends the process at once.
type signals struct {
	cancel  context.CancelFunc
	got     chan os.Signal
	first   atomic.Int32 // number of the first signal, 0 for none
	forward atomic.Pointer[os.Process]
	muted   atomic.Bool
}

// newSignals starts watching. The caller calls stop.
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
		if child := s.forward.Load(); child != nil {
			// The program that kimg runs decides; a terminal has sent it the interrupt already.
			if number != syscall.SIGINT || !terminal(os.Stdin) {
				_ = child.Signal(number)
			}
			continue
		}
		if s.muted.Load() || number != syscall.SIGINT && number != syscall.SIGTERM {
			continue
		}
		if !s.first.CompareAndSwap(0, int32(number)) {
			os.Exit(s.exitCode())
		}
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

// stop gives the signals back and releases the context.
func (s *signals) stop() {
	signal.Stop(s.got)
	close(s.got)
	s.cancel()
}

// pass hands signals on to a child instead of cancelling, until the returned function is called. Signals that would
// end this process without a chance to unmount go to the child as well.
func (s *signals) pass(child *os.Process) (release func()) {
	s.forward.Store(child)
	signal.Notify(s.got, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	return func() { s.forward.Store(nil) }
}

// mute leaves signals to whoever else watches them, until the process ends.
func (s *signals) mute() { s.muted.Store(true) }

// terminal reports whether a file is a terminal.
func terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
