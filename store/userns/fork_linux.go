//go:build linux && (amd64 || arm64 || riscv64 || ppc64le || loong64 || 386 || arm)

package userns

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canFork says that forkInto works here. Elsewhere the argument order of clone has not been looked at.
const canFork = true

// The runtime's side of a fork, as package syscall uses it: signals are held back in the parent and reset in the child.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// forkInto forks, joins the namespaces in the child and executes this program there. A user namespace can only be joined by
// a process with one thread, which a Go process never is, except right after a fork.
func forkInto(t target, childEnd, cwd *os.File, s stage, a joinArgs) (*os.Process, error) {
	path, err := syscall.BytePtrFromString("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	argv, err := syscall.SlicePtrFromStrings(a.args)
	if err != nil {
		return nil, err
	}
	envv, err := syscall.SlicePtrFromStrings(environment(a.env, a.who, a.holder, s))
	if err != nil {
		return nil, err
	}
	f := forkArgs{user: t.user.Fd(), mnt: t.mnt.Fd(), report: childEnd.Fd(), path: path, argv: &argv[0], envv: &envv[0]}
	var pid uintptr
	err = passing([]*os.File{childEnd, cwd}, func() error {
		syscall.ForkLock.Lock()
		defer syscall.ForkLock.Unlock()
		var errno syscall.Errno
		if pid, errno = forkJoinExec(&f); errno != 0 {
			return os.NewSyscallError("clone", errno)
		}
		return nil
	})
	runtime.KeepAlive(argv)
	runtime.KeepAlive(envv)
	runtime.KeepAlive(t)
	if err != nil {
		return nil, err
	}
	return os.FindProcess(int(pid))
}

// forkArgs is all the child needs; nothing can be allocated after the fork.
type forkArgs struct {
	user, mnt, report uintptr
	path              *byte
	argv, envv        **byte
	record            [2]uint32 // a report, see reportSize
}

// forkJoinExec returns the child's pid, in the parent only. Between fork and exec the child is a copy with a single thread of a
// program that has many: no allocation, no growing stack, no locks, only raw system calls. A step that fails is written to the
// report socket, which closes itself with a successful exec's Init.
//
//go:noinline
//go:norace
func forkJoinExec(f *forkArgs) (uintptr, syscall.Errno) {
	runtimeBeforeFork()
	// All other arguments are zero, so their order, which differs between architectures, does not matter.
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	runtimeAfterForkInChild()

	f.record[0] = uint32(stepJoinUser)
	_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, f.user, unix.CLONE_NEWUSER, 0)
	if errno == 0 {
		f.record[0] = uint32(stepJoinMount)
		_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, f.mnt, unix.CLONE_NEWNS, 0)
	}
	if errno == 0 {
		// After setns, which clears it. Should the parent be dead already, Init finds out.
		f.record[0] = uint32(stepDeath)
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	}
	if errno == 0 {
		f.record[0] = uint32(stepExec)
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE,
			uintptr(unsafe.Pointer(f.path)), uintptr(unsafe.Pointer(f.argv)), uintptr(unsafe.Pointer(f.envv)))
	}
	f.record[1] = uint32(errno)
	syscall.RawSyscall(unix.SYS_WRITE, f.report, uintptr(unsafe.Pointer(&f.record)), reportSize)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, exitLost, 0, 0)
	}
}
