package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A parent and the child it starts talk over a socket: the parent says that the id maps are written, the child that it is up
// or where it failed. Its end tells each of them that the other one died.

// goByte tells a waiting child that its id maps are written.
const goByte = 'g'

// step is where the start of a child failed.
type step uint32

const (
	stepNone step = iota // it did not: the child is up
	stepExec
	stepRoot
	stepMount
	stepChdir
	stepDeath
	stepJoinUser
	stepJoinMount
	stepKeep
)

var stepText = map[step]string{
	stepExec:      "executing this program again",
	stepRoot:      "becoming root of the new user namespace",
	stepMount:     "mounting in the new namespace",
	stepChdir:     "returning to the working directory",
	stepDeath:     "binding the child to its parent",
	stepJoinUser:  "joining the user namespace",
	stepJoinMount: "joining the mount namespace",
	stepKeep:      "keeping the namespace",
}

// A report is one step and one error number, in the machine's byte order: the raw child of a join writes it too, which can
// do no more than that.
const reportSize = 8

func announce(socket *os.File) { report(socket, stepNone, 0) }

func report(socket *os.File, s step, errno syscall.Errno) {
	var b [reportSize]byte
	binary.NativeEndian.PutUint32(b[:4], uint32(s))
	binary.NativeEndian.PutUint32(b[4:], uint32(errno))
	_, _ = socket.Write(b[:]) // a parent that is gone needs no report
}

// exitOn ends a child that cannot go on, after telling the parent why.
func exitOn(socket *os.File, s step, err error) {
	if err == nil {
		return
	}
	errno := syscall.EIO
	errors.As(err, &errno)
	report(socket, s, errno)
	os.Exit(exitLost)
}

// startError is a child's report of a failed start.
type startError struct {
	step  step
	errno syscall.Errno
}

func (e *startError) Error() string { return stepText[e.step] + ": " + e.errno.Error() }
func (e *startError) Unwrap() error { return e.errno }

// errDied says that a child ended without a report.
var errDied = errors.New("the child ended before it was ready")

// await reads a child's report; nil means that the child is up.
func await(socket io.Reader) error {
	var b [reportSize]byte
	if _, err := io.ReadFull(socket, b[:]); err != nil {
		return errDied
	}
	s := step(binary.NativeEndian.Uint32(b[:4]))
	if s == stepNone {
		return nil
	}
	return &startError{s, syscall.Errno(binary.NativeEndian.Uint32(b[4:]))}
}

// socketPair returns the parent's and the child's end of a socket, both closed on exec.
func socketPair() (parent, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent"), nil
}

// passing runs start while some descriptors survive an exec, under their own numbers, so that those the user passed on
// (a shell's <(…), for one) keep theirs. Only descriptors whose leak into another child does no harm may be passed so.
func passing(files []*os.File, start func() error) error {
	defer runtime.KeepAlive(files)
	for _, f := range files {
		fd := f.Fd()
		if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
			return err
		}
		defer unix.CloseOnExec(int(fd))
	}
	return start()
}
