package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// envHelper makes the test binary a helper instead of a test.
const envHelper = "KIMG_LAB_HELPER"

// UnderMount is the first argument of a helper, the directory, when it stands for the tree kimg mounted for the helper.
const UnderMount = "@root"

// helpers are the commands a test binary can run as: each takes a directory and further arguments.
var helpers = map[string]func(dir string, args []string) error{
	"snapshot": func(dir string, _ []string) error { return Snapshot(os.Stdout, dir) },
	"change":   func(dir string, args []string) error { return change(dir, args) },
	"untar":    untar,
	"audit":    audit,
	"many":     many,
	"legacy":   legacy,
	"layers":   layers,
}

// Main is the first call of TestMain: in a process that was started as a helper it does the helper's work and does not
// return.
func Main() {
	name := os.Getenv(envHelper)
	if name == "" {
		return
	}
	if err := runHelper(name, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runHelper(name string, args []string) error {
	f := helpers[name]
	if f == nil || len(args) == 0 {
		return fmt.Errorf("no such helper, or no directory")
	}
	dir := args[0]
	if dir == UnderMount {
		dir = os.Getenv("KIMG_ROOT")
	}
	if dir == "" {
		return fmt.Errorf("KIMG_ROOT is not set")
	}
	syscall.Umask(0)
	return f(dir, args[1:])
}

// HelperEnv is the environment that makes this program run as a helper.
func HelperEnv(name string) string { return envHelper + "=" + name }

// self is this program at a path that mapped ids and other users reach: the go command runs tests in a directory of its own
// that is closed to them.
func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if reachable(filepath.Dir(exe)) {
		return exe
	}
	open := filepath.Join(TempDir(t), "helper")
	if os.Link(exe, open) == nil {
		return open
	}
	data, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(open, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// reachable tells whether everybody may go into a directory and all those above it.
func reachable(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}

// Helper runs a helper on a directory, inside the namespace of the peers when we are not root.
func Helper(t testing.TB, name, dir string, args ...string) string {
	t.Helper()
	return Must(t, []string{HelperEnv(name)}, Unshared(append([]string{self(t), dir}, args...)...)...)
}

// HelperMapped runs a helper on a directory in a user namespace of its own, whose ids from 0 on are the machine's from
// host on. Only root can do that.
func HelperMapped(t testing.TB, host, size int, name, dir string, args ...string) string {
	t.Helper()
	tree, err := os.Open(dir) // directories above it may be closed to the namespace
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	cmd := exec.Command(self(t), append([]string{"/proc/self/fd/3"}, args...)...)
	cmd.Env = append(os.Environ(), HelperEnv(name))
	cmd.ExtraFiles = []*os.File{tree}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: size}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s in a namespace: %v\n%s", name, err, out)
	}
	return string(out)
}

// ExitCode is the status a shell would show: 128+n after signal n.
func ExitCode(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

// Start starts a command without waiting for it; it is killed at the end of the test.
func Start(t testing.TB, env []string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = nil, nil
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}
