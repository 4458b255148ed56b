package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageEnv tells a re-executed child what it is. It is private: Init takes it out of the environment before anything else,
// the command line included, can see it.
const stageEnv = "_KIMG_USERNS_STAGE"

// exitLost is the status of a child whose parent died before the child could start. Nobody is left to see it.
const exitLost = 125

// The words of a stage. A child is first "wait" (its namespace has no id map yet), then, after one more exec, "up".
const (
	stageWait = "wait"
	stageUp   = "up"
)

// role is what an "up" child goes on to be.
type role string

const (
	roleEnter role = "enter" // the program, in a namespace made for it
	roleJoin  role = "join"  // the program, in a namespace it joined
	roleKeep  role = "keep"  // the keeper of a namespace
)

// stage is the value of stageEnv.
type stage struct {
	word   string
	role   role
	report int // our end of the socket to the parent
	cwd    int // a descriptor of the directory to go to; -1 when the exec kept it
	parent int // the parent's pid: another one means that it died
	extra  int // for a keeper: the locked file; -1 otherwise
}

func (s stage) env() string {
	return fmt.Sprintf("%s=%s %s %d %d %d %d", stageEnv, s.word, s.role, s.report, s.cwd, s.parent, s.extra)
}

func parseStage(value string) (stage, error) {
	var s stage
	n, err := fmt.Sscanf(value, "%s %s %d %d %d %d", &s.word, &s.role, &s.report, &s.cwd, &s.parent, &s.extra)
	if n != 6 {
		return stage{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.report, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return stage{}, errors.New("no socket to the parent")
	}
	return s, nil
}

// Init takes over in processes that this package started: it never returns in those that wait for their id map or keep a
// namespace, and makes the others ready before main sees them. It must be the first statement of main, and of TestMain
// where a test reaches this package, after containers/storage's reexec.Init. In any other process it does nothing.
func Init() {
	value, ok := os.LookupEnv(stageEnv)
	if !ok {
		return
	}
	if err := os.Unsetenv(stageEnv); err != nil {
		os.Exit(exitLost)
	}
	s, err := parseStage(value)
	if err != nil {
		return // not from us: an ordinary process with a strange environment
	}
	unix.CloseOnExec(s.report)
	socket := os.NewFile(uintptr(s.report), "parent")
	switch s.word {
	case stageWait:
		wait(socket, s)
	case stageUp:
		up(socket, s)
		if s.role == roleKeep {
			os.Exit(keep(socket, os.NewFile(uintptr(s.extra), "keeper"), os.Args))
		}
		announce(socket)
		socket.Close()
	}
}

// wait blocks until the parent has written the id maps, then executes this program once more: the first exec ran with an id
// that was not mapped yet and so lost all capabilities; the second one gives those of root.
func wait(socket *os.File, s stage) {
	var b [1]byte
	if n, err := socket.Read(b[:]); n != 1 || err != nil || b[0] != goByte {
		os.Exit(exitLost)
	}
	s.word = stageUp
	if s.role == roleKeep {
		closeOthersOnExec(s.report, s.extra)
	}
	// The socket and what else the next stage needs must survive this one exec.
	for _, fd := range []int{s.report, s.cwd, s.extra} {
		if fd >= 0 {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
			exitOn(socket, stepExec, err)
		}
	}
	exitOn(socket, stepExec, syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), s.env())))
}

// up checks that this process became root of the namespace and binds its life to the parent's.
func up(socket *os.File, s stage) {
	if os.Geteuid() != 0 {
		exitOn(socket, stepRoot, syscall.EPERM)
	}
	if s.role != roleJoin {
		exitOn(socket, stepMount, mayMount())
	}
	if s.cwd >= 0 {
		exitOn(socket, stepChdir, returnTo(s.cwd))
	}
	if s.role == roleJoin && s.extra >= 0 {
		takeName(s.extra)
	}
	if s.role == roleKeep {
		return
	}
	// Gaining capabilities cleared the signal asked for before; and the parent may have died in between.
	exitOn(socket, stepDeath, unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
	if os.Getppid() != s.parent {
		os.Exit(exitLost)
	}
}

// mayMount tells whether a security module lets us mount at all. The call changes nothing: in a new namespace every mount is
// private or a slave already. In a chroot the root directory may be no mount point, which is another error and no verdict.
func mayMount() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return err
	}
	return nil
}

// returnTo goes back to the directory the program was started in: joining a mount namespace moved us to its root. By path,
// so that a tree mounted there in this namespace is seen, and never the bare directory below it; by the descriptor when the
// path leads elsewhere because this namespace does not have the file system mounted that the directory is on.
func returnTo(fd int) error {
	defer unix.Close(fd)
	var want, have unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return err
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || unix.Stat(path, &have) != nil {
		return unix.Fchdir(fd)
	}
	if have.Dev != want.Dev || have.Ino != want.Ino {
		dev := fmt.Sprintf("%d:%d", unix.Major(uint64(want.Dev)), unix.Minor(uint64(want.Dev)))
		mounts, err := mountsOf(os.Getpid())
		if err != nil || !slices.ContainsFunc(mounts, func(m mount) bool { return m.dev == dev }) {
			return unix.Fchdir(fd)
		}
	}
	return unix.Chdir(path)
}

// takeName ends the detour by nsenter: the program file it executed is closed, and the name we were called by is ours again.
func takeName(exe int) {
	unix.Close(exe)
	if name, ok := os.LookupEnv(nameEnv); ok && len(os.Args) > 0 {
		os.Args[0] = name
	}
	_ = os.Unsetenv(nameEnv)
}

// nameEnv carries the program's name past nsenter, which cannot set it. It is as private as stageEnv.
const nameEnv = "_KIMG_USERNS_NAME"

// closeOthersOnExec keeps a long-lived child from holding what its starter inherited, such as the pipe of a shell's $(…).
func closeOthersOnExec(keep ...int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err == nil && fd > 2 && fd != keep[0] && fd != keep[1] {
			unix.CloseOnExec(fd)
		}
	}
}

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

// environment returns env with what containers/storage and we must know in the child, each name once.
func environment(env []string, who identity, holder process, s stage) []string {
	out := make([]string, 0, len(env)+6)
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case stageEnv, nameEnv, holderEnv, configuredEnv, rootlessUIDEnv, rootlessGIDEnv:
			continue
		}
		out = append(out, e)
	}
	out = append(out, configuredEnv+"=done", rootlessUIDEnv+"="+strconv.Itoa(who.uid), rootlessGIDEnv+"="+strconv.Itoa(who.gid))
	if holder.pid != 0 {
		out = append(out, holderEnv+"="+holder.String())
	}
	return append(out, s.env())
}

// What containers/storage reads once per process, so it must be there from the start.
const (
	configuredEnv  = "_CONTAINERS_USERNS_CONFIGURED"
	rootlessUIDEnv = "_CONTAINERS_ROOTLESS_UID"
	rootlessGIDEnv = "_CONTAINERS_ROOTLESS_GID"
)
