//go:build linux

package userns

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
)

// With a limit of no namespaces at all, the switch is named and nothing is run.
func TestForbiddenByTheSystem(t *testing.T) {
	testenv.Need(t, "setpriv", "sh")
	u := mapped(t)
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1 << 20}}
	for _, way := range ways {
		// The limit is one of each user namespace and holds for those made in it; the machine's own stays as it is.
		script := fmt.Sprintf(`echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --reuid %d --regid %d --clear-groups "$0" 5`, u.uid, u.gid)
		cmd := u.command(way + "exit")
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = sh, []string{"sh", "-c", script, u.binary}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true}
		r := finish(t, cmd)
		if r.status != 1 || !strings.Contains(r.err, "sysctl user.max_user_namespaces=0") {
			t.Errorf("%s: status %d %s%s", way, r.status, r.out, r.err)
		}
	}
	if left := u.keepers(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Where a set-user-id program gains nothing, newuidmap cannot work, and a single id is better than none.
func TestNoNewPrivileges(t *testing.T) {
	testenv.Need(t, "setpriv")
	u := mapped(t)
	dir := u.mkdir(t, "mnt")
	for _, way := range ways {
		r := u.outside(t, "setpriv", "--no-new-privs", "env", actionEnv+"="+way+"who", u.binary)
		if r.status != 0 || !strings.HasPrefix(r.out, fmt.Sprintf("0 0\n0 %d 1\n", u.uid)) || !strings.Contains(r.err, "no_new_privs") {
			t.Errorf("status %d %s%s", r.status, r.out, r.err)
		}
		r = u.outside(t, "setpriv", "--no-new-privs", "env", actionEnv+"=keep-cycle", u.binary, dir)
		if r.status != 0 {
			t.Errorf("no mounts: status %d %s%s", r.status, r.out, r.err)
		}
		u.alone(t)
	}
}

func TestNoHelpers(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		cmd := u.command(way + "who")
		cmd.Env = append(cmd.Env, "PATH=/nowhere")
		r := finish(t, cmd)
		if r.status != 0 || !strings.HasPrefix(r.out, fmt.Sprintf("0 0\n0 %d 1\n", u.uid)) || !strings.Contains(r.err, "newuidmap or newgidmap is not installed") {
			t.Errorf("status %d %s%s", r.status, r.out, r.err)
		}
	}
}

// A helper that fails is no reason to go on with less.
func TestFailingHelper(t *testing.T) {
	u := mapped(t)
	bin := u.mkdir(t, "bin")
	for _, name := range []string{"newuidmap", "newgidmap"} {
		script(t, bin+"/"+name, "echo 'range not allowed' >&2; exit 1")
	}
	for _, way := range ways {
		cmd := u.command(way+"exit", "5")
		cmd.Env = append(cmd.Env, "PATH="+bin+":/usr/bin:/bin")
		r := finish(t, cmd)
		if r.status != 1 || !strings.Contains(r.err, "newuidmap: exit status 1: range not allowed") {
			t.Errorf("%s: status %d %s", way, r.status, r.err)
		}
	}
	eventually(t, "no process is left", func() bool { return len(u.processes()) == 0 })
}

func TestRefusalsAreExplained(t *testing.T) {
	for _, no := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.ENOSYS, syscall.EINVAL} {
		if err := explainClone(no); !errors.Is(err, kimg.ErrDenied) || !errors.Is(err, no) {
			t.Errorf("clone, %v: %v", no, err)
		}
	}
	if err := explainClone(syscall.EIO); !errors.Is(err, kimg.ErrIO) {
		t.Error(err)
	}
	for _, cause := range []error{&startError{stepMount, syscall.EPERM}, &startError{stepRoot, syscall.EPERM}, errDied} {
		if err := explainStart(cause); !errors.Is(err, kimg.ErrDenied) || !errors.Is(err, cause) {
			t.Errorf("start, %v: %v", cause, err)
		}
	}
}
