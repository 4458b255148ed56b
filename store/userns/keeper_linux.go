package userns

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kimg/kimg"
	"golang.org/x/sys/unix"
)

// keeperTitle is the keeper's name in a process list; its only argument is the room.
const keeperTitle = "kimg-namespace-keeper"

// keeper is a living keeper, seen from outside.
type keeper struct {
	process
	before map[string]bool // the keys of the mounts its namespace began with
}

// record is what a keeper writes about itself: a line "pid start", then the mounts it began with, a key per line.
func (k keeper) record() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", k.process)
	for key := range k.before {
		b.WriteString(key + "\n")
	}
	return b.String()
}

func parseKeeper(text string) (keeper, error) {
	first, rest, ok := strings.Cut(text, "\n")
	p, err := parseProcess(first)
	if err != nil || !ok {
		return keeper{}, errors.New("not a keeper's record")
	}
	k := keeper{process: p, before: map[string]bool{}}
	for line := range strings.Lines(rest) {
		k.before[strings.TrimSuffix(line, "\n")] = true
	}
	return k, nil
}

// busy reports whether anything is mounted in the keeper's namespace.
func (k keeper) busy() bool {
	now, err := mountsOf(k.pid)
	return err == nil && len(made(now, k.before)) > 0
}

// maxRecord bounds what is read of a keeper's record.
const maxRecord = 1 << 20

// findKeeper returns the living keeper of a room, nil when there is none, errGone when one is coming or going. What the record says is believed only while its lock is held, and
// only about a process of this user, started when the record says so, in another user namespace.
func (r room) findKeeper(uid int) (*keeper, error) {
	f, err := r.open("keeper")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	held, err := heldByOthers(f)
	if err != nil || !held {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errGone // whoever started it died before it could write; it will leave, or be ready soon
	}
	k, err := parseKeeper(string(text))
	if err == nil {
		err = k.valid(uid)
	}
	if err != nil {
		if held, err := heldByOthers(f); err == nil && !held {
			return nil, nil // it died just now
		}
		if errors.Is(err, errGone) {
			return nil, err
		}
		// A lock without its owner in sight: it lives in another pid namespace, that is in another container.
		return nil, kimg.Errorf(kimg.ErrBusy, f.Name(), "the namespace of this run directory is kept by a process that cannot be reached: %w", err)
	}
	return &k, nil
}

// valid says whether a process can be what a record says it is: the same process, of this user, in another user namespace.
func (p process) valid(uid int) error {
	start, err := startTime(p.pid)
	if err != nil {
		return err
	}
	if start != p.start {
		return fmt.Errorf("process %d is another one", p.pid)
	}
	if !ownedBy(p.pid, uid) {
		return fmt.Errorf("process %d is of another user", p.pid)
	}
	same, err := sameNamespace(p.pid, "user")
	if err != nil {
		return err
	}
	if same {
		return fmt.Errorf("process %d is in no namespace of its own", p.pid)
	}
	// A dying process is without its mounts for a while before its locks go.
	if _, err := namespaceOf(procPath(p.pid, "ns/mnt")); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// startKeeper starts a keeper and returns when it is ready. The caller holds the room's start lock, and the users lock
// shared, so that the keeper stays until it is used.
func (r room) startKeeper(who identity, log *slog.Logger) (*keeper, error) {
	f, err := r.open("keeper")
	if err != nil {
		return nil, err
	}
	defer f.Close() // the keeper's copy holds the lock
	if err := setLock(f, unix.F_WRLCK, false); err != nil {
		return nil, kimg.Wrap(f.Name(), err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	// No environment and no files of this command: the keeper outlives it.
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{keeperTitle, string(r)},
		Dir:         "/",
		Env:         []string{},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	c, err := enter(who, roleKeep, cmd, f, log)
	if err != nil {
		return nil, err
	}
	c.socket.Close()
	// Nobody waits for it: when this process ends it becomes a child of init.
	if err := c.cmd.Process.Release(); err != nil {
		return nil, err
	}
	k, err := r.findKeeper(who.uid)
	if err == nil && k == nil {
		err = errGone
	}
	return k, err
}

// keep is the keeper's life: it says who it is, and then leaves as soon as nothing is mounted and nobody is there. It
// returns the exit status.
func keep(socket, record *os.File, args []string) int {
	dir, ok := keeperRoom(args)
	if !ok {
		exitOn(socket, stepKeep, syscall.EINVAL)
	}
	// Gaining capabilities hides a process from its own user; Outside needs /proc/PID/root.
	exitOn(socket, stepKeep, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	users, err := room(dir).open("users")
	exitOn(socket, stepKeep, err)
	k, err := selfKeeper()
	exitOn(socket, stepKeep, err)
	_, err = record.WriteAt([]byte(k.record()), 0)
	exitOn(socket, stepKeep, err)
	announce(socket)
	socket.Close()

	for {
		if err := k.untilUnmounted(); err != nil {
			return 1
		}
		if err := setLock(users, unix.F_WRLCK, true); err != nil {
			return 1
		}
		// Alone: whoever comes now waits for our lock, and then looks for a keeper.
		if used, err := k.mounted(); err == nil && !used {
			_ = record.Truncate(0)
			_ = setLock(record, unix.F_UNLCK, false)
			return 0
		}
		if err := setLock(users, unix.F_UNLCK, false); err != nil {
			return 1
		}
	}
}

// selfKeeper is what this process, a keeper, says about itself.
func selfKeeper() (keeper, error) {
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return keeper{}, err
	}
	now, err := mountsOf(pid)
	return keeper{process{pid, start}, keys(now)}, err
}

// mounted reports, in the keeper itself, whether anything is mounted here that was not when the namespace was new.
func (k keeper) mounted() (bool, error) {
	now, err := mountsOf(k.pid)
	if err != nil {
		return false, err
	}
	forgetGone(k.before, now)
	return len(made(now, k.before)) > 0, nil
}

// untilUnmounted returns when nothing that was made in this namespace is mounted any more. The kernel wakes a poll on
// mountinfo at each change; between two changes the keeper costs nothing.
func (k keeper) untilUnmounted() error {
	// Not an os.File: the runtime would poll it as well, and who polls an event first takes it away from the other.
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		if used, err := k.mounted(); err != nil || !used {
			return err
		}
		// An event between the reading and the poll is not lost: the file counts from the last poll on.
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// keeperRoom is where a keeper finds its files: its only argument.
func keeperRoom(args []string) (string, bool) {
	if len(args) != 2 || !filepath.IsAbs(args[1]) {
		return "", false
	}
	return args[1], true
}
