//go:build linux

package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
)

// pauseProcess starts what looks like rootless podman's pause process, with its pid file.
func (s *someone) pauseProcess(t *testing.T) *session {
	t.Helper()
	dir := s.runtime
	if dir == "" {
		dir = s.mkdir(t, "podman-run-"+strconv.Itoa(s.uid))
	}
	for _, d := range []string{"libpod", "libpod/tmp"} {
		path := filepath.Join(dir, d)
		_ = os.Mkdir(path, 0o700)
		if err := os.Chown(path, s.uid, s.gid); err != nil {
			t.Fatal(err)
		}
	}
	return s.begin(t, "pause", filepath.Join(dir, pauseFile))
}

// in returns the namespaces a command would run in now.
func (s *someone) in(t *testing.T, way string) string {
	t.Helper()
	return s.ok(t, way+"namespace")
}

func namespacesOf(t *testing.T, pid string) string {
	t.Helper()
	user, err := os.Readlink("/proc/" + pid + "/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	mnt, err := os.Readlink("/proc/" + pid + "/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	return user + " " + mnt
}

func TestOrderOfNamespaces(t *testing.T) {
	u := mapped(t)
	a, b := u.in(t, ""), u.in(t, "")
	if a == b {
		t.Errorf("two commands that need nothing kept share %s", a)
	}

	// podman's pause process before a new namespace, and before a new keeper.
	pause := u.pauseProcess(t)
	podmans := namespacesOf(t, pause.first)
	for _, way := range ways {
		if got := u.in(t, way); got != podmans {
			t.Errorf("%s: %s, podman's is %s", way, got, podmans)
		}
	}
	if len(u.keepers()) != 0 {
		t.Error("a keeper was started beside podman's pause process")
	}
	dir := u.mkdir(t, "mnt")
	if got, want := u.ok(t, "keep-mount", dir), "/proc/"+pause.first+"/root"+dir+" true"; got != want {
		t.Errorf("Outside: %s, want %s", got, want)
	}
	if got := u.ok(t, "read", dir+"/file"); got != "inside" {
		t.Error(got)
	}
	// Killed, its file stays behind and is not believed.
	_ = pause.cmd.Process.Kill()
	pause.end()
	eventually(t, "the pause process is gone", func() bool { pid, _ := strconv.Atoi(pause.first); return gone(pid) })
	if got := u.in(t, ""); got == podmans {
		t.Error("still in the namespace of the dead pause process")
	}

	// A keeper with mounts before podman's pause process.
	path := strings.TrimSuffix(u.ok(t, "keep-mount", dir), " true")
	kept := namespacesOf(t, strings.Split(path, "/")[2])
	pause = u.pauseProcessBeside(t)
	for _, way := range ways {
		if got := u.in(t, way); got != kept {
			t.Errorf("%s: %s, the keeper's is %s", way, got, kept)
		}
	}
	u.ok(t, "umount", dir)
	// The keeper is idle now, or gone: podman's again.
	if got, want := u.in(t, "keep-"), namespacesOf(t, pause.first); got != want {
		t.Errorf("with an idle keeper: %s, podman's is %s", got, want)
	}
	pause.end()
}

// pauseProcessBeside starts a pause process while a keeper lives, which it must not join: as podman would not.
func (s *someone) pauseProcessBeside(t *testing.T) *session {
	t.Helper()
	c := s.command("pause", filepath.Join(s.runtime, pauseFile))
	for i, e := range c.Env {
		if strings.HasPrefix(e, "XDG_RUNTIME_DIR=") {
			c.Env[i] = "XDG_RUNTIME_DIR=" + s.mkdir(t, "other")
		}
	}
	return start(t, c)
}

func TestPauseWithoutRuntimeDirectory(t *testing.T) {
	for _, inRun := range []bool{true, false} {
		u := unmapped(t)
		u.runtime = ""
		if inRun {
			u.runtime = runUser(t, u)
		}
		pause := u.pauseProcess(t)
		u.runtime = ""
		if got, want := u.in(t, "keep-"), namespacesOf(t, pause.first); got != want {
			t.Errorf("%s, podman's is %s", got, want)
		}
		pause.end()
	}
}

// A pause file is only believed about a process that can be podman's.
func TestFalsePauseFiles(t *testing.T) {
	u := mapped(t)
	pause := u.pauseProcess(t)
	file := filepath.Join(u.runtime, pauseFile)
	real, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := u.begin(t, "stay") // a namespace of the user's, but none of podman's
	podmans := namespacesOf(t, pause.first)
	if got := u.in(t, ""); got != podmans {
		t.Fatal("the true one is not believed")
	}
	write := func(text []byte, uid int) func() error {
		return func() error { return firstOf(os.WriteFile(file, text, 0o644), os.Chown(file, uid, -1)) }
	}
	for name, prepare := range map[string]func() error{
		"other user's file": write(real, 0),
		"not podman's":      write([]byte(other.first), u.uid),
		"another user's":    write([]byte(strconv.Itoa(os.Getpid())), u.uid),
		"outside":           write([]byte(strconv.Itoa(other.cmd.Process.Pid)), u.uid),
		"none":              write([]byte("4000000"), u.uid),
		"init":              write([]byte("1"), u.uid),
		"nonsense":          write([]byte("-x"), u.uid),
		"a link": func() error {
			to := filepath.Join(u.runtime, "real")
			return firstOf(os.WriteFile(to, real, 0o600), os.Chown(to, u.uid, -1), os.Symlink(to, file))
		},
		"a pipe": func() error { return firstOf(syscall.Mkfifo(file, 0o600), os.Chown(file, u.uid, -1)) },
	} {
		if err := firstOf(os.RemoveAll(file), prepare()); err != nil {
			t.Fatal(err)
		}
		if got := u.in(t, ""); got == podmans || got == namespacesOf(t, other.first) {
			t.Errorf("%s was believed", name)
		}
	}
	pause.end()
	other.end()
}

// A shell in a namespace of ours: commands in it stay there, and know how to be reached from outside.
func TestInsideANamespace(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		inner := u.ok(t, way+"command", "sh", "-c",
			`env `+actionEnv+`=namespace "$0"; readlink /proc/$$/ns/user /proc/$$/ns/mnt; env `+actionEnv+`=outside "$0" /tmp/../x; echo $PPID`, u.binary)
		lines := strings.Split(inner, "\n")
		if len(lines) != 5 || lines[0] != lines[1]+" "+lines[2] {
			t.Fatalf("%s: %q", way, inner)
		}
		if !strings.HasPrefix(lines[3], "/proc/") || !strings.HasSuffix(lines[3], "/root/x true") {
			t.Errorf("%s: %s", way, lines[3])
		}
		if way == "" && lines[3] != "/proc/"+lines[4]+"/root/x true" {
			t.Errorf("held by %s: %s", lines[4], lines[3])
		}
	}
	// Nobody else is in a new namespace: nothing stays.
	u.alone(t)
	if r := u.run(t, "outside", "/x"); r.status == 0 || !strings.Contains(r.out, "false") {
		t.Errorf("status %d %s%s", r.status, r.out, r.err)
	}
}

func TestOnTheHost(t *testing.T) {
	testenv.Root(t)
	if Needed() {
		t.Error("root needs no namespace")
	}
	if path, err := Outside("/x/../y"); path != "/x/../y" || err != nil || !Kept() {
		t.Error(path, err)
	}
	if _, err := Outside("relative"); err == nil {
		t.Error("a relative path has no outside")
	}
}

// In a namespace no container tool made, the user's own store is meant.
func TestForeignNamespace(t *testing.T) {
	testenv.Need(t, "unshare")
	u := mapped(t)
	want := fmt.Sprintf("true %d %d\n%s/.local/share/containers/storage", u.uid, u.gid, u.dir)
	if got := u.outside(t, "unshare", "-rm", "env", actionEnv+"=whose", u.binary); !strings.HasSuffix(strings.TrimSpace(got.out), want) {
		t.Errorf("%s%s\nwant %s", got.out, got.err, want)
	}
	// Inside of ours, nothing changes that.
	for _, way := range ways {
		if got := u.ok(t, way+"whose"); got != want {
			t.Errorf("%s: %s", way, got)
		}
	}
}

// Both tools see one mount when podman was there first.
func TestWithPodman(t *testing.T) {
	testenv.Need(t, "podman")
	u := mapped(t)
	podman := func(args ...string) result {
		return u.outside(t, "podman", append([]string{"--log-level=error", "--cgroup-manager=cgroupfs"}, args...)...)
	}
	if r := podman("unshare", "true"); r.status != 0 {
		t.Fatal(r.err)
	}
	pid, err := os.ReadFile(filepath.Join(u.runtime, pauseFile))
	if err != nil {
		testenv.Skip(t, "this podman has no pause process: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What podman stored belongs to subordinate ids. Without its pause process this would start another one, which would stay.
		_ = podman("unshare", "rm", "-rf", filepath.Join(u.dir, ".local"))
		_ = syscall.Kill(n, syscall.SIGKILL)
	})
	dir := u.mkdir(t, "mnt")
	u.ok(t, "keep-mount", dir)
	if len(u.keepers()) != 0 {
		t.Error("a keeper beside podman's pause process")
	}
	if r := podman("unshare", "cat", dir+"/file"); r.out != "inside" {
		t.Errorf("podman sees %q %s", r.out, r.err)
	}
	if r := podman("unshare", "umount", dir); r.status != 0 {
		t.Error(r.err)
	}
	if r := u.run(t, "read", dir+"/file"); r.status == 0 {
		t.Error("unmounted by podman, and still there")
	}
}
