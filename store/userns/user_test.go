//go:build linux

package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// someone is an unprivileged user with a home, a runtime directory and a copy of this test binary.
type someone struct {
	uid, gid int
	name     string
	dir      string // the user's own
	runtime  string // XDG_RUNTIME_DIR; empty: not set
	binary   string
}

// mapped returns the test user, who has subordinate ids.
func mapped(t *testing.T) *someone {
	t.Helper()
	const name = "kimgtest"
	if _, err := user.Lookup(name); err != nil {
		testenv.Root(t)
		// Several test programs may find at once that the user is missing.
		out, err := exec.Command("useradd", "--create-home", name).CombinedOutput()
		if _, again := user.Lookup(name); again != nil {
			t.Fatalf("useradd: %v: %s", err, out)
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return newcomer(t, name, uid, gid)
}

// unmapped returns a user nobody gave any subordinate ids.
func unmapped(t *testing.T) *someone {
	t.Helper()
	return newcomer(t, "", 54321, 54321)
}

func newcomer(t *testing.T, name string, uid, gid int) *someone {
	t.Helper()
	testenv.Root(t)
	// Not t.TempDir: its parents are closed to other users.
	dir, err := os.MkdirTemp("", "kimg-userns-")
	if err != nil {
		t.Fatal(err)
	}
	s := &someone{uid: uid, gid: gid, name: name, dir: dir, runtime: filepath.Join(dir, "run"), binary: filepath.Join(dir, "test.bin")}
	t.Cleanup(func() {
		s.killAll(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(s.runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, s.runtime} {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// room is where the user's keepers meet when the runtime directory is set.
func (s *someone) room() string { return filepath.Join(s.runtime, "containers", roomName) }

// killAll ends every process of this test binary.
func (s *someone) killAll(t *testing.T) {
	for range 1000 {
		alive := false
		for _, pid := range s.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			alive = true
		}
		if !alive {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("processes stay alive")
}

// processes are the pids of all processes of this user's test binary.
func (s *someone) processes() []int {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	var out []int
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && strings.TrimSuffix(target, " (deleted)") == s.binary {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			out = append(out, pid)
		}
	}
	return out
}

// keepers are the pids of the user's keepers.
func (s *someone) keepers() []int {
	var out []int
	for _, pid := range s.processes() {
		line, _ := os.ReadFile(procPath(pid, "cmdline"))
		stat, _ := os.ReadFile(procPath(pid, "stat"))
		if bytes.HasPrefix(line, []byte(keeperTitle+"\x00")) && !bytes.Contains(stat, []byte(") Z ")) {
			out = append(out, pid)
		}
	}
	return out
}

// mkdir makes a directory of the user's own.
func (s *someone) mkdir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := firstOf(os.MkdirAll(dir, 0o755), os.Chown(dir, s.uid, s.gid)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// outside runs an ordinary program as the user, outside of all namespaces.
func (s *someone) outside(t *testing.T, name string, args ...string) result {
	t.Helper()
	cmd := s.command("", args...)
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args[0] = path, name
	return finish(t, cmd)
}

// alone waits until the user's keeper has left.
func (s *someone) alone(t *testing.T) {
	t.Helper()
	for range 3000 {
		if len(s.keepers()) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, pid := range s.keepers() {
		args, _ := os.ReadFile(procPath(pid, "cmdline"))
		_, dir, _ := strings.Cut(strings.TrimSuffix(string(args), "\x00"), "\x00")
		text, err := os.ReadFile(filepath.Join(dir, "keeper"))
		k, _ := parseKeeper(string(text))
		now, _ := mountsOf(pid)
		t.Errorf("keeper %d stays: record %v %v, mounts %+v", pid, k.process, err, made(now, k.before))
		if f, err := os.Open(filepath.Join(dir, "users")); err == nil {
			held, err := heldByOthers(f)
			t.Errorf("used: %v %v", held, err)
			f.Close()
		}
	}
	t.FailNow()
}

// command is a program of the user: this binary doing an action, in the user's directory and environment.
func (s *someone) command(action string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.binary, args...)
	cmd.Args[0] = "kimg-test"
	cmd.Dir = s.dir
	cmd.Env = []string{
		actionEnv + "=" + action, "HOME=" + s.dir, "TMPDIR=" + s.dir, "PATH=" + os.Getenv("PATH"), "LANG=C",
	}
	if s.runtime != "" {
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+s.runtime)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.gid)}}
	return cmd
}

// result is how a command ended.
type result struct {
	out, err string
	status   int
}

// run runs a command to its end.
func (s *someone) run(t *testing.T, action string, args ...string) result {
	t.Helper()
	return finish(t, s.command(action, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), exitStatus(cmd.ProcessState)}
}

// ok runs a command that must succeed, and returns what it printed.
func (s *someone) ok(t *testing.T, action string, args ...string) string {
	t.Helper()
	r := s.run(t, action, args...)
	if r.status != 0 {
		t.Fatalf("%s %q: status %d: %s", action, args, r.status, r.err)
	}
	return strings.TrimSpace(r.out)
}

// session is a command that goes on until its standard input is closed.
type session struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	first string // the line it printed when it was ready
}

// begin starts a command and waits for its first line.
func (s *someone) begin(t *testing.T, action string, args ...string) *session {
	t.Helper()
	return start(t, s.command(action, args...))
}

func start(t *testing.T, cmd *exec.Cmd) *session {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	n, err := stdout.Read(line)
	if err != nil {
		_ = cmd.Wait()
		t.Fatalf("%q: %v: %s", cmd.Args, err, errs.String())
	}
	return &session{cmd, stdin, strings.TrimSpace(string(line[:n]))}
}

// end closes the session's standard input and returns its status.
func (c *session) end() int {
	c.stdin.Close()
	_ = c.cmd.Wait()
	return exitStatus(c.cmd.ProcessState)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 3000 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not within 30 s: %s", what)
}

// gone reports whether a process does not run any more; one that nobody waited for yet counts as gone.
func gone(pid int) bool {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// actionEnv tells this test binary what to do instead of testing.
const actionEnv = "KIMG_USERNS_TEST_ACTION"

// act is what a helper program does. Outside, as a user, it first goes into the namespace, as kimg does: "keep-" in front of
// the action asks for a namespace that stays.
func act(action string) int {
	inner, keep := strings.CutPrefix(action, "keep-")
	inner, nsenter := strings.CutPrefix(inner, "nsenter-")
	if Needed() {
		run := Run
		if nsenter {
			run = runByNsenter
		}
		exit, err := run(Options{Keep: keep, Logger: testLogger()})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return exit
	}
	if err := acts[inner](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runByNsenter is Run for a namespace that is kept already, and by the way that is taken where our fork is not available.
func runByNsenter(o Options) (int, error) {
	who := identity{os.Geteuid(), os.Getegid()}
	k, err := room(filepath.Join(defaultRunRoot(who.uid), roomName)).findKeeper(who.uid)
	if err != nil || k == nil {
		return 1, fmt.Errorf("no keeper: %w", err)
	}
	relay := startRelay()
	defer relay.stop()
	p, err := joinWith(nsenterInto, target{}, joinArgs{who, k.process, os.Args, os.Environ()})
	if err != nil {
		return 1, err
	}
	return relay.wait(p)
}

// readUntilClosed waits for the end of standard input.
func readUntilClosed() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func cat(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.Join(strings.Fields(string(data)), " "), err
}

func raise(s syscall.Signal) error { return unix.Kill(os.Getpid(), s) }
