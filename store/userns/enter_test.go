//go:build linux

package userns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ways are the two ways into a namespace: a new one is cloned, a kept one is joined.
var ways = []string{"", "keep-"}

func TestAllIDsAreMapped(t *testing.T) {
	u := mapped(t)
	m, err := planMaps(u.uid, u.gid)
	if err != nil || m.single != "" {
		t.Fatalf("the test user has no ids: %v %s", err, m.single)
	}
	text := func(list []extent) string {
		var out []string
		for _, e := range list {
			out = append(out, fmt.Sprint(e.inside, e.outside, e.size))
		}
		return strings.Join(out, " ")
	}
	want := fmt.Sprintf("0 0\n%s\n%s\ntrue %d %d", text(m.uids), text(m.gids), u.uid, u.gid)
	for _, way := range ways {
		if got := u.ok(t, way+"who"); got != want {
			t.Errorf("%swho:\n%s\nwant:\n%s", way, got, want)
		}
	}
}

func TestSingleIDWithoutRanges(t *testing.T) {
	u := unmapped(t)
	want := fmt.Sprintf("0 0\n0 %d 1\n0 %d 1\ntrue %d %d\n", u.uid, u.gid, u.uid, u.gid)
	for _, way := range ways {
		r := u.run(t, way+"who")
		if r.status != 0 || r.out != want {
			t.Errorf("%swho: status %d\n%s%s\nwant:\n%s", way, r.status, r.out, r.err, want)
		}
		if strings.Count(r.err, "only one user id is mapped") != 1 || !strings.Contains(r.err, "/etc/subuid") {
			t.Errorf("%swho does not warn once, and why: %q", way, r.err)
		}
	}
}

func TestStatusIsPassedOn(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		for _, status := range []int{0, 1, 3, 125, 255} {
			if r := u.run(t, way+"exit", strconv.Itoa(status)); r.status != status {
				t.Errorf("%sexit %d: %d %s", way, status, r.status, r.err)
			}
		}
		for _, s := range []syscall.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGHUP} {
			if r := u.run(t, way+"die", strconv.Itoa(int(s))); r.status != 128+int(s) {
				t.Errorf("%sdie %d: %d %s", way, s, r.status, r.err)
			}
		}
	}
}

func TestStreamsAndArguments(t *testing.T) {
	u := mapped(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, way := range ways {
		cmd := u.command(way + "copy")
		cmd.Stdin = bytes.NewReader(data)
		if r := finish(t, cmd); r.out != string(data) {
			t.Errorf("%scopy: %d of %d bytes came back", way, len(r.out), len(data))
		}
		if got, want := u.ok(t, way+"args", "a b", "", "-x"), `["kimg-test" "a b" "" "-x"]`; got != want {
			t.Errorf("%sargs: %s, want %s", way, got, want)
		}
	}
}

// A shell's <(…) hands a command an open descriptor by its number.
func TestInheritedDescriptors(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		var files []*os.File
		for _, text := range []string{"three", "four", "five"} {
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString(text); err != nil {
				t.Fatal(err)
			}
			if err := f.Chmod(0o644); err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		for i, want := range []string{"three", "four", "five"} {
			cmd := u.command(way+"readfd", strconv.Itoa(3+i))
			cmd.ExtraFiles = files
			for _, f := range files {
				_, _ = f.Seek(0, 0)
			}
			if r := finish(t, cmd); strings.TrimSpace(r.out) != want {
				t.Errorf("%sreadfd %d: %q %s", way, 3+i, r.out, r.err)
			}
		}
	}
}

// The child sees no descriptor and no variable of ours.
func TestNothingLeaksIntoTheChild(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		for line := range strings.Lines(u.ok(t, way+"fds")) {
			if strings.Contains(line, "socket:") || strings.Contains(line, roomName) || strings.Contains(line, u.dir) {
				t.Errorf("%sfds: %s", way, line)
			}
		}
		env := u.ok(t, way+"environ")
		if strings.Contains(env, stageEnv) || strings.Contains(env, nameEnv) {
			t.Errorf("%senviron: %s", way, env)
		}
		for _, name := range []string{configuredEnv, rootlessUIDEnv, rootlessGIDEnv} {
			if strings.Count(env, name+"=") != 1 {
				t.Errorf("%senviron: %s is not there once:\n%s", way, name, env)
			}
		}
	}
}

func TestChildDiesWithItsParent(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		c := u.begin(t, way+"stay")
		inner, err := strconv.Atoi(c.first)
		if err != nil || inner == c.cmd.Process.Pid {
			t.Fatalf("%sstay: %q", way, c.first)
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, way+"child ends", func() bool { return gone(inner) })
		c.end()
	}
}

// A child whose parent dies before the id maps are written must not become anything.
func TestWaitingChildWithoutParent(t *testing.T) {
	parent, child, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	cmd := exec.Command("/proc/self/exe")
	s := stage{word: stageWait, role: roleEnter, report: 3, cwd: -1, parent: os.Getpid(), extra: -1}
	cmd.Env = []string{s.env(), actionEnv + "=exit"}
	cmd.ExtraFiles = []*os.File{child}
	parent.Close()
	if r := finish(t, cmd); r.status != exitLost {
		t.Errorf("status %d, want %d: %s", r.status, exitLost, r.err)
	}
}

// The variable alone, however it came into the environment, takes nothing over.
func TestStrangeStageIsIgnored(t *testing.T) {
	u := mapped(t)
	for _, value := range []string{"", "x", "up join 0 0 0 0", "wait keep 999 -1 1 -1", strings.Repeat("9 ", 1000)} {
		cmd := u.command("exit", "7")
		cmd.Env = append(cmd.Env, stageEnv+"="+value)
		if r := finish(t, cmd); r.status != 7 {
			t.Errorf("%.20q: status %d: %s", value, r.status, r.err)
		}
	}
}

func TestWorkingDirectoryIsKept(t *testing.T) {
	u := mapped(t)
	dir := u.mkdir(t, "deep/er")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("deep", filepath.Join(u.dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		cmd := u.command(way+"cwd", "../er/file")
		cmd.Dir = filepath.Join(u.dir, "link/er")
		if r := finish(t, cmd); r.out != dir+" content\n" {
			t.Errorf("%scwd: %q %s", way, r.out, r.err)
		}
	}
}

// Without XDG_RUNTIME_DIR the places are those of containers/storage: /run/user/UID, else a directory in the temporary one.
func TestWithoutRuntimeDirectory(t *testing.T) {
	for _, inRun := range []bool{true, false} {
		u := unmapped(t) // nobody else is this user, so nobody else's keeper is there
		u.runtime = ""
		want := filepath.Join(u.dir, fmt.Sprintf("storage-run-%d/", u.uid))
		if inRun {
			want = runUser(t, u)
		}
		dir := u.mkdir(t, "mnt")
		path := strings.TrimSuffix(u.ok(t, "keep-mount", dir), " true")
		if r := u.outside(t, "cat", path+"/file"); r.out != "inside" {
			t.Errorf("%q %s", r.out, r.err)
		}
		line, err := os.ReadFile(procPath(u.keepers()[0], "cmdline"))
		if err != nil || !strings.Contains(string(line), want) {
			t.Errorf("the keeper's room is not below %s: %q %v", want, line, err)
		}
		u.ok(t, "umount", dir)
		u.alone(t)
		_ = os.RemoveAll(fmt.Sprintf("/run/user/%d", u.uid))
	}
}

// runUser makes /run/user/UID for a user, as a login would.
func runUser(t *testing.T, u *someone) string {
	t.Helper()
	dir := fmt.Sprintf("/run/user/%d", u.uid)
	if err := firstOf(os.MkdirAll(dir, 0o700), os.Chown(dir, u.uid, u.gid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
