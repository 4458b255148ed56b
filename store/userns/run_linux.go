package userns

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/kimg/kimg"
	"golang.org/x/sys/unix"
)

// Needed reports whether this process must be re-executed by [Run] before it can work on a store: it is neither root nor in
// a namespace where it is. As root of somebody else's namespace (buildah unshare, podman unshare, a container) it stays there.
func Needed() bool { return os.Geteuid() != 0 }

// Run executes this program again, with the arguments of the options, inside a user and mount namespace in which the
// calling user is root; the package documentation says in which. Standard streams, terminal, working directory and inherited
// descriptors are the child's as they were ours. Signals are passed on; if this process dies, so does the child.
//
// It returns the child's exit status, 128+n if signal n ended it. With an error the program was not run: class denied when the
// system forbids user namespaces, busy when another process holds the keeper's locks. Run waits for its child and is not
// meant for use by several goroutines at once.
func Run(o Options) (int, error) {
	// The kernel ends a child when the thread that made it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if o.Args == nil {
		o.Args = os.Args
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if len(o.Args) == 0 {
		return 1, kimg.Errorf(kimg.ErrInvalid, object, "no arguments to run with")
	}
	who := identity{os.Geteuid(), os.Getegid()}
	relay := startRelay()
	defer relay.stop()

	var exit int
	err := untilSettled(func() error {
		place, err := choose(who, o)
		if err != nil {
			return err
		}
		defer place.close()
		exit, err = place.run(who, o, relay)
		return err
	})
	if err != nil {
		return 1, err
	}
	return exit, nil
}

// errGone says that the process holding the chosen namespace is about to end, or ended before it was joined.
var errGone = errors.New("the process that holds it is ending")

// untilSettled tries again for as long as something meets a namespace that is on its way out.
func untilSettled(something func() error) error {
	deadline := time.Now().Add(lockWait)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := something()
		if !errors.Is(err, errGone) {
			return err
		}
		if time.Now().After(deadline) {
			return kimg.Errorf(kimg.ErrBusy, object, "%w", err)
		}
		time.Sleep(pause)
	}
}

// place is the namespace chosen for a command.
type place struct {
	holder process      // who holds it; the zero value means a new one
	alive  func() error // whether the holder is still there
	use    io.Closer    // while open, the keeper stays; may be nil
}

func (p place) close() {
	if p.use != nil {
		p.use.Close()
	}
}

// run runs the command in the chosen place.
func (p place) run(who identity, o Options, relay *relay) (int, error) {
	if p.holder.pid == 0 {
		cmd := &exec.Cmd{
			Path: "/proc/self/exe", Args: o.Args, Env: o.Env,
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
			SysProcAttr: &syscall.SysProcAttr{},
		}
		c, err := enter(who, roleEnter, cmd, nil, o.logger())
		if err != nil {
			return 1, err
		}
		c.socket.Close()
		return relay.wait(c.cmd.Process)
	}
	proc, err := join(who, p, o)
	if err != nil {
		return 1, err
	}
	return relay.wait(proc)
}

// choose picks the namespace for a command. The order is the package's promise.
func choose(who identity, o Options) (_ place, err error) {
	runRoot := o.RunRoot
	if runRoot == "" {
		runRoot = defaultRunRoot(who.uid)
	}
	// A keeper has another working directory.
	runRoot, err = filepath.Abs(runRoot)
	if err != nil {
		return place{}, err
	}
	r, err := openRoom(runRoot)
	if err != nil {
		if o.Keep {
			return place{}, err
		}
		return podmansOrNew(who), nil // no keeper can be there
	}
	start, err := r.openLocked("start", unix.F_WRLCK)
	if err != nil {
		return place{}, err
	}
	defer start.Close()
	users, err := r.openLocked("users", unix.F_RDLCK)
	if err != nil {
		return place{}, err
	}
	defer func() {
		if err != nil {
			users.Close()
		}
	}()
	kept := func(k *keeper) place {
		return place{holder: k.process, alive: func() error { return r.stillKept(who.uid, k.process) }, use: users}
	}
	k, err := r.findKeeper(who.uid)
	if err != nil {
		return place{}, err
	}
	if k != nil {
		used, err := heldByOthers(users)
		if err != nil {
			return place{}, err
		}
		if used || k.busy() {
			return kept(k), nil
		}
	}
	p := podmansOrNew(who)
	switch {
	case p.holder.pid != 0:
	case k != nil:
		return kept(k), nil
	case o.Keep:
		k, err := r.startKeeper(who, o.logger())
		if err != nil {
			return place{}, err
		}
		return kept(k), nil
	}
	users.Close() // an idle keeper may go
	return p, nil
}

// stillKept tells whether a keeper lives on.
func (r room) stillKept(uid int, p process) error {
	k, err := r.findKeeper(uid)
	if err != nil {
		return err
	}
	if k == nil || k.process != p {
		return errGone
	}
	return nil
}

// podmansOrNew is the place of a command when no keeper is in use.
func podmansOrNew(who identity) place {
	p, ok := findPause(who.uid)
	if !ok {
		return place{}
	}
	return place{holder: p, alive: func() error {
		if again, ok := findPause(who.uid); !ok || again != p {
			return errGone
		}
		return nil
	}}
}
