package userns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
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
// where a test reaches this package, after containers/storage's reexec.Init. In any other process it does nothing, except
// that in a foreign namespace (unshare -r) it sets the variables by which containers/storage knows the user.
func Init() {
	value, ok := os.LookupEnv(stageEnv)
	if !ok {
		adopt()
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
