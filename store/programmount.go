package store

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// mountWait bounds the wait until a mount program shows a tree.
const mountWait = 10 * time.Second

// programMount is a tree that the store's mount program shows, read-only, in a mount namespace of its own. Nobody else
// sees it, no count of the store knows it, and nothing of it is left when this process or the program is killed.
type programMount struct {
	path string // through the program's own root directory
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended
}

// mountWith has the program show directories merged, top first. The caller closes the mount.
func (s *Store) mountWith(ctx context.Context, program string, dirs []string) (*programMount, error) {
	options := []string{"ro", "lowerdir=" + strings.Join(dirs, ":")}
	if own, ok := driverOption(s.st.GraphOptions(), "mountopt"); ok {
		for o := range strings.SplitSeq(own, ",") {
			if o != "" && o != "metacopy=on" && o != "volatile" { // as the driver does
				options = append(options, o)
			}
		}
	}
	// The run root is there and holds none of the directories: in that namespace, the mount may cover it.
	at := s.st.RunRoot()
	cmd := exec.Command(program, "-f", "-o", strings.Join(slices.Compact(options), ","), at)
	// In a pid namespace of its own, because a program may be a script that starts another one: with the first process all are gone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	m := &programMount{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() { // the signal comes when the thread that started the program ends, so that one waits for it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
			close(m.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, kimg.Wrap("mount program", err)
	}
	m.path = fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, at)
	for deadline := time.Now().Add(mountWait); ; {
		last := time.Now().After(deadline) // this process may have stood still, too: it looks once more
		var before, now unix.Stat_t
		if unix.Stat(at, &before) == nil && unix.Stat(m.path, &now) == nil && now.Dev != before.Dev {
			return m, nil
		}
		if last {
			m.close()
			return nil, kimg.Errorf(kimg.ErrUnsupported, "mount program "+kimg.Quote(program), "mounted nothing within %s", mountWait)
		}
		select {
		case <-m.done:
			return nil, kimg.Errorf(kimg.ErrUnsupported, "mount program "+kimg.Quote(program), "does not mount: %s", kimg.Escape(strings.TrimSpace(said.String()), 512))
		case <-ctx.Done():
			m.close()
			return nil, check(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// close ends the program, and the mount with it.
func (m *programMount) close() {
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.done
}
