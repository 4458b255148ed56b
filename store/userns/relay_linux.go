package userns

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// relay passes signals on to the child, from before it starts until it has ended.
type relay struct {
	signals chan os.Signal
	done    chan struct{}
	stopped sync.WaitGroup
	child   chan *os.Process
}

// passedOn are the signals a child gets from us, always.
var passedOn = []os.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT}

// fromTerminal are those that a terminal sends to us and to the child alike. They are passed on only when no terminal can
// have sent them, else the child would get each twice, and takes the second one for impatience.
var fromTerminal = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP}

// startRelay begins to catch signals. Those this process was told to ignore (nohup) stay ignored, in the child too.
func startRelay() *relay {
	r := &relay{signals: make(chan os.Signal, 64), done: make(chan struct{}), child: make(chan *os.Process, 1)}
	catch := func(list []os.Signal) {
		for _, s := range list {
			if !signal.Ignored(s) {
				signal.Notify(r.signals, s)
			}
		}
	}
	catch(passedOn)
	if inForeground() {
		catch(fromTerminal[:2]) // the child decides what they mean; SIGTSTP stops us both
	} else {
		catch(fromTerminal)
	}
	r.stopped.Go(r.run)
	return r
}

// run forwards signals that came since the start, once there is a child.
func (r *relay) run() {
	var child *os.Process
	select {
	case child = <-r.child:
	case <-r.done:
		return
	}
	for {
		select {
		case s := <-r.signals:
			r.forward(child, s)
		case <-r.done:
			return
		}
	}
}

func (r *relay) forward(child *os.Process, s os.Signal) {
	if (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground() {
		return
	}
	_ = child.Signal(s) // it may have ended
	if s == unix.SIGTSTP {
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
}

// wait waits for the child and returns its exit status, 128+n if signal n ended it.
func (r *relay) wait(p *os.Process) (int, error) {
	r.child <- p
	state, err := p.Wait()
	if err != nil {
		return 1, err
	}
	return exitStatus(state), nil
}

// stop gives the signals back.
func (r *relay) stop() {
	signal.Stop(r.signals)
	close(r.done)
	r.stopped.Wait()
}

// exitStatus is a process's end as a shell counts it.
func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// inForeground reports whether we are in the foreground of our terminal, so that what is typed there reaches the child too.
func inForeground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
