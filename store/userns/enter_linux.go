package userns

import (
	"log/slog"
	"os"
	"os/exec"
	"syscall"
)

// child is a started child and the parent's end of the socket to it.
type child struct {
	cmd    *exec.Cmd
	socket *os.File
}

// enter starts this program in a new user and mount namespace and waits until it is up there. cmd says with which
// arguments, environment and files; the rest is put in here. lock, which may be nil, is passed on as the stage's extra
// descriptor. On error nothing is left running.
func enter(who identity, r role, cmd *exec.Cmd, lock *os.File, log *slog.Logger) (*child, error) {
	maps, err := planMaps(who.uid, who.gid)
	if err != nil {
		return nil, err
	}
	parentEnd, childEnd, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer childEnd.Close()
	s := stage{word: stageWait, role: r, report: int(childEnd.Fd()), cwd: -1, parent: os.Getpid(), extra: -1}
	start := func() error { return passing([]*os.File{childEnd}, cmd.Start) }
	if lock != nil {
		// A lock must not leak into another child, not even for a moment, and a keeper inherits nothing it needs.
		cmd.ExtraFiles = []*os.File{childEnd, lock}
		s.report, s.extra = 3, 4
		start = cmd.Start
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
	maps.atClone(cmd.SysProcAttr)
	cmd.Env = environment(cmd.Env, who, process{}, s)
	c := &child{cmd, parentEnd}
	if err := start(); err != nil {
		parentEnd.Close()
		return nil, explainClone(err)
	}
	childEnd.Close() // else a child that dies would never be noticed
	if maps.single != "" {
		log.Warn("only one user id is mapped, images with files of other users will fail: " + maps.single)
	}
	if err := c.bringUp(maps); err != nil {
		c.kill()
		return nil, explainStart(err)
	}
	return c, nil
}

// bringUp gives the waiting child its id maps and waits until it is root there.
func (c *child) bringUp(maps idMaps) error {
	if err := maps.set(c.cmd.Process.Pid); err != nil {
		return err
	}
	if _, err := c.socket.Write([]byte{goByte}); err != nil {
		return errDied
	}
	return await(c.socket)
}

// kill ends a child that did not come up.
func (c *child) kill() {
	c.socket.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
