package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/kimg/kimg"
	"golang.org/x/sys/unix"
)

// target is a namespace to join, held open, so that it is the one that was looked at.
type target struct{ user, mnt *os.File }

func (t target) close() {
	for _, f := range []*os.File{t.user, t.mnt} {
		if f != nil {
			f.Close()
		}
	}
}

// openTarget opens the namespaces of a process.
func openTarget(pid int) (t target, err error) {
	defer func() {
		if err != nil {
			t.close()
			t = target{}
		}
	}()
	if t.user, err = os.Open(procPath(pid, "ns/user")); err != nil {
		return t, err
	}
	t.mnt, err = os.Open(procPath(pid, "ns/mnt"))
	return t, err
}

// join starts the program in the namespaces of a process and waits until it is up there.
func join(who identity, p place, o Options) (*os.Process, error) {
	t, err := openTarget(p.holder.pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, kimg.Wrap(object, err)
	}
	defer t.close()
	// Now that the namespaces are held: do they still belong to whom we looked at?
	if err := p.alive(); err != nil {
		return nil, err
	}
	start := forkInto
	if !canFork {
		start = nsenterInto
	}
	return joinWith(start, t, joinArgs{who: who, holder: p.holder, args: o.Args, env: o.Env})
}

// joinArgs are the program to run in a joined namespace, for whom, and the process that holds the namespace.
type joinArgs struct {
	who       identity
	holder    process
	args, env []string
}

// joiner is one of the two ways to start a child in a namespace: forkInto and nsenterInto.
type joiner func(t target, childEnd, cwd *os.File, s stage, a joinArgs) (*os.Process, error)

// joinWith starts the program in one of the two ways and waits until it is up.
func joinWith(start joiner, t target, a joinArgs) (*os.Process, error) {
	parentEnd, childEnd, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer parentEnd.Close()
	defer childEnd.Close()
	// A directory that may not be read, or was deleted, can still be gone back to with O_PATH.
	cwd, err := os.OpenFile(".", unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer cwd.Close()
	s := stage{word: stageUp, role: roleJoin, report: int(childEnd.Fd()), cwd: int(cwd.Fd()), parent: os.Getpid(), extra: -1}
	proc, err := start(t, childEnd, cwd, s, a)
	if err != nil {
		return nil, kimg.Wrap(object, fmt.Errorf("joining that of process %d: %w", a.holder.pid, err))
	}
	childEnd.Close() // else a child that dies would never be noticed
	if err := await(parentEnd); err != nil {
		_ = proc.Kill()
		_, _ = proc.Wait()
		return nil, kimg.Errorf(kimg.ErrDenied, object, "joining that of process %d: %w", a.holder.pid, err)
	}
	return proc, nil
}

// nsenterInto joins with the nsenter program of util-linux, where our own fork is not available. This program is handed over
// as an open file, since /proc/self/exe would be nsenter itself; the name it was called by comes back by the environment.
func nsenterInto(_ target, childEnd, cwd *os.File, s stage, a joinArgs) (*os.Process, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	s.extra = int(exe.Fd())
	cmd := exec.Command("nsenter", "--preserve-credentials", "-U", "-m", "-t", strconv.Itoa(a.holder.pid),
		"--", fmt.Sprintf("/proc/self/fd/%d", s.extra))
	cmd.Args = append(cmd.Args, a.args[1:]...)
	cmd.Env = append(environment(a.env, a.who, a.holder, s), nameEnv+"="+a.args[0])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := passing([]*os.File{childEnd, cwd, exe}, cmd.Start); err != nil {
		return nil, err
	}
	return cmd.Process, nil
}
