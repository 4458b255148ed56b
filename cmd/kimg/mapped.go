package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containers/storage/pkg/reexec"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
)

// mappedHelper is the name under which this program starts itself inside the namespace of a container with id maps.
const mappedHelper = "kimg-mapped"

// treeFD is the number of the open tree in the helper.
const treeFD = 3

// runMapped runs a command in a user namespace with a container's id maps, so that the files it makes belong to the
// container's ids. The way to the tree leads through directories that only the store's owner may enter; so the tree is
// handed over as an open mount and attached to a directory of its own, in a mount namespace of its own.
func (a *app) runMapped(root string, uids, gids layerdiff.IDMap, command []string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return kimg.Wrap(root, err)
	}
	f := os.NewFile(uintptr(tree), root)
	defer f.Close()
	at, err := os.MkdirTemp(publicDir(), "kimg-root-")
	if err != nil {
		return err
	}
	defer os.Remove(at)
	if err := os.Chmod(at, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{mappedHelper, at}, command...)
	cmd.Env = append(os.Environ(), rootVariable+"="+at)
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                sysMap(uids),
		GidMappings:                sysMap(gids),
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
	}
	return a.runChild(cmd)
}

// publicDir returns a directory for temporary files that the container's ids can reach too.
func publicDir() string {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if reachable(dir) {
			return dir
		}
	}
	return "" // the error then says why
}

// reachable reports whether everybody may pass through a directory and all above it.
func reachable(dir string) bool {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func sysMap(m layerdiff.IDMap) []syscall.SysProcIDMap {
	if len(m) == 0 {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<31 - 1}}
	}
	out := make([]syscall.SysProcIDMap, len(m))
	for i, r := range m {
		out[i] = syscall.SysProcIDMap{ContainerID: int(r.Container), HostID: int(r.Host), Size: int(r.Size)}
	}
	return out
}

func init() { reexec.Register(mappedHelper, runMappedHelper) }

// runMappedHelper attaches the tree and becomes the command. Its arguments are the directory and the command.
func runMappedHelper() {
	fail := func(code int, object string, err error) {
		fmt.Fprintf(os.Stderr, "kimg: %s\n", kimg.Line(kimg.Wrap(object, err)))
		os.Exit(code)
	}
	if len(os.Args) < 3 {
		fail(exitUsage, mappedHelper, kimg.Errorf(kimg.ErrInvalid, "", "not to be called by hand"))
	}
	at, command := os.Args[1], os.Args[2:]
	if err := unix.MoveMount(treeFD, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		fail(exitFail, at, err)
	}
	unix.CloseOnExec(treeFD)
	path, err := exec.LookPath(command[0])
	if err == nil {
		err = syscall.Exec(path, command, os.Environ())
	}
	var failed notRun
	if errors.As(childNotRun(command[0], err), &failed) {
		fail(failed.code, "", failed.error)
	}
}
