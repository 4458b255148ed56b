//go:build linux

package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMountsAreSharedAndKeeperLeaves(t *testing.T) {
	u := mapped(t)
	dir := u.mkdir(t, "mnt")
	path, kept := strings.CutSuffix(u.ok(t, "keep-mount", dir), " true")
	if !kept {
		t.Error("the namespace does not say that it is kept")
	}
	keepers := u.keepers()
	if len(keepers) != 1 {
		t.Fatalf("keepers: %v", keepers)
	}
	if want := fmt.Sprintf("/proc/%d/root%s", keepers[0], dir); path != want {
		t.Errorf("Outside: %s, want %s", path, want)
	}
	// Later calls see the mount, whether they ask for a keeper or not; the host does not.
	for _, way := range ways {
		if got := u.ok(t, way+"read", dir+"/file"); got != "inside" {
			t.Errorf("%sread: %q", way, got)
		}
	}
	if _, err := os.Stat(dir + "/file"); err == nil {
		t.Error("the mount is visible on the host")
	}
	if r := u.outside(t, "cat", path+"/file"); r.out != "inside" {
		t.Errorf("from outside: %q %s", r.out, r.err)
	}
	time.Sleep(50 * time.Millisecond)
	if got := u.keepers(); len(got) != 1 || got[0] != keepers[0] {
		t.Errorf("keepers while mounted: %v, first %v", got, keepers)
	}
	u.ok(t, "umount", dir)
	u.alone(t)
	if r := u.run(t, "read", dir+"/file"); r.status == 0 {
		t.Error("the mount is still there")
	}
}

// Nothing of the first command lives on in the keeper: no pipe, no terminal, no directory, no secret.
func TestKeeperHoldsNothing(t *testing.T) {
	u := mapped(t)
	dir := u.mkdir(t, "mnt")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := u.command("keep-mount", dir)
	cmd.Env = append(cmd.Env, "SECRET=hush")
	cmd.ExtraFiles = []*os.File{w, w, w, w}
	if res := finish(t, cmd); res.status != 0 {
		t.Fatal(res.err)
	}
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the keeper holds an inherited pipe open")
	}
	pid := u.keepers()[0]
	environ, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil || strings.Contains(string(environ), "hush") {
		t.Errorf("environment of the keeper: %q %v", environ, err)
	}
	if cwd, err := os.Readlink(procPath(pid, "cwd")); cwd != "/" {
		t.Errorf("working directory of the keeper: %s %v", cwd, err)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session of the keeper: %d %v", sid, err)
	}
	fds, err := filepath.Glob(procPath(pid, "fd/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		// Its socket to the first command is closed when that has read it.
		eventually(t, fd+" is the keeper's own", func() bool {
			to, err := os.Readlink(fd)
			return err != nil || to == "/dev/null" || strings.HasPrefix(to, u.room()) || strings.HasPrefix(to, "anon_inode:") ||
				strings.HasSuffix(to, "/mountinfo") || strings.HasPrefix(to, "/sys/fs/cgroup/") // the runtime's
		})
	}
	u.ok(t, "umount", dir)
}

func TestKeeperWaitsForItsUsers(t *testing.T) {
	u := mapped(t)
	c := u.begin(t, "keep-stay")
	time.Sleep(100 * time.Millisecond)
	if len(u.keepers()) != 1 {
		t.Fatal("the keeper left while it was used")
	}
	if got, want := u.ok(t, "namespace"), u.ok(t, "keep-namespace"); got != want {
		t.Errorf("a keeper in use was not joined: %s, %s", got, want)
	}
	if status := c.end(); status != 0 {
		t.Errorf("status %d", status)
	}
	u.alone(t)
}

// containers/storage binds the driver's directory onto itself; that alone must not keep a keeper.
func TestBindOntoItselfDoesNotCount(t *testing.T) {
	u := mapped(t)
	dir := u.mkdir(t, "home")
	u.ok(t, "keep-bind", dir)
	u.alone(t)
}

// What happens on the host to mounts that were there before is not the keeper's business.
func TestMountsOfTheHostDoNotCount(t *testing.T) {
	u := mapped(t)
	from, to, dir := u.mkdir(t, "from"), u.mkdir(t, "to"), u.mkdir(t, "mnt")
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	u.ok(t, "keep-mount", dir)
	if err := unix.Unmount(to, 0); err != nil {
		t.Fatal(err)
	}
	// In the namespace it is mounted still, and the name of what is mounted changes.
	if err := os.Remove(from); err != nil {
		t.Fatal(err)
	}
	u.ok(t, "umount", dir)
	u.alone(t)
}

func TestConcurrentFirstCallsStartOneKeeper(t *testing.T) {
	u := mapped(t)
	for range 3 {
		const n = 8
		var sessions [n]*session
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { sessions[i] = u.begin(t, "keep-stay") })
		}
		all.Wait()
		if got := u.keepers(); len(got) != 1 {
			t.Errorf("keepers: %v", got)
		}
		seen := map[string]bool{}
		for _, s := range sessions {
			ns, err := os.Readlink("/proc/" + s.first + "/ns/mnt")
			if err != nil {
				t.Error(err)
			}
			seen[ns] = true
		}
		if len(seen) != 1 {
			t.Errorf("namespaces: %v", seen)
		}
		for _, s := range sessions {
			if status := s.end(); status != 0 {
				t.Errorf("status %d", status)
			}
		}
		u.alone(t)
	}
}

// Keepers come and go all the time; nobody ever meets one that is on its way out.
func TestComingAndGoing(t *testing.T) {
	u := mapped(t)
	var all sync.WaitGroup
	for i := range 6 {
		dir := u.mkdir(t, "mnt"+strconv.Itoa(i))
		all.Go(func() {
			for range 15 {
				if r := finish(t, u.command("keep-cycle", dir)); r.status != 0 {
					t.Errorf("status %d: %s", r.status, r.err)
				}
			}
		})
	}
	all.Wait()
	u.alone(t)
}

func TestKilledKeeper(t *testing.T) {
	u := mapped(t)
	dir := u.mkdir(t, "mnt")
	for range 3 {
		u.ok(t, "keep-mount", dir)
		pid := u.keepers()[0]
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the keeper is gone", func() bool { return gone(pid) })
		if r := u.run(t, "keep-read", dir+"/file"); r.status == 0 {
			t.Error("the mount outlived the keeper")
		}
	}
	// Killed at any moment, with calls in flight: they end, and the next one works.
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(7 * time.Millisecond):
				for _, pid := range u.keepers() {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	})
	for range 25 {
		r := u.run(t, "keep-exit", "0")
		if r.status != 0 && !strings.Contains(r.err, "before it was ready") {
			t.Errorf("status %d: %s", r.status, r.err)
		}
	}
	close(stop)
	killer.Wait()
	u.ok(t, "keep-cycle", dir)
}

// What is in the room is believed only as far as it can be checked.
func TestFalseRecords(t *testing.T) {
	u := mapped(t)
	want := u.ok(t, "keep-who") // makes the room
	u.alone(t)
	own := process{pid: os.Getpid()}
	own.start, _ = startTime(own.pid)
	record := filepath.Join(u.room(), "keeper")
	for name, text := range map[string]string{
		"empty": "", "nonsense": "x\ny\n", "negative": "-1:5\n", "init": "1:0\n", "not a user's": own.String() + "\n",
		"too long": strings.Repeat("1", 1<<21), "no such process": "4000000:1\n",
	} {
		if err := os.WriteFile(record, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := u.ok(t, "keep-who"); got != want {
			t.Errorf("%s, not locked: %s", name, got)
		}
		u.alone(t)
		if text == "" {
			continue // locked, that is a keeper about to be ready
		}
		f, err := os.OpenFile(record, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(record, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := setLock(f, unix.F_WRLCK, false); err != nil {
			t.Fatal(err)
		}
		if r := u.run(t, "keep-who"); r.status == 0 || !strings.Contains(r.err, "cannot be reached") {
			t.Errorf("%s, locked: status %d %s", name, r.status, r.err)
		}
		f.Close()
	}
}

func TestRoomOfSomebodyElse(t *testing.T) {
	u := mapped(t)
	other := unmapped(t)
	for name, prepare := range map[string]func(path string) error{
		"link":         func(path string) error { return os.Symlink(u.mkdir(t, "elsewhere"), path) },
		"file":         func(path string) error { return os.WriteFile(path, nil, 0o777) },
		"other user's": func(path string) error { return firstOf(os.Mkdir(path, 0o777), os.Chown(path, other.uid, other.gid)) },
		"open to all": func(path string) error {
			return firstOf(os.Mkdir(path, 0o777), os.Chown(path, u.uid, u.gid), os.Chmod(path, 0o777))
		},
	} {
		path := u.room()
		u.mkdir(t, "run/containers")
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if r := u.run(t, "keep-who"); r.status != 1 || r.out != "" {
			t.Errorf("%s: status %d %s", name, r.status, r.out)
		}
	}
}

// firstOf returns the first error.
func firstOf(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestJoinByNsenter(t *testing.T) {
	u := mapped(t)
	dir := u.mkdir(t, "mnt")
	u.ok(t, "keep-mount", dir)
	if got, want := u.ok(t, "nsenter-namespace"), u.ok(t, "namespace"); got != want {
		t.Errorf("namespace %s, want %s", got, want)
	}
	if got := u.ok(t, "nsenter-who"); got != u.ok(t, "who") {
		t.Error(got)
	}
	if got, want := u.ok(t, "nsenter-args", "a b", ""), `["kimg-test" "a b" ""]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, action := range []string{"nsenter-cwd", "cwd"} {
		// Inside, the directory is covered by a mount, and that is what a command must see and write to.
		cmd := u.command(action, "file")
		cmd.Dir = dir
		if r := finish(t, cmd); r.out != dir+" inside\n" {
			t.Errorf("%s: %q %s", action, r.out, r.err)
		}
	}
	for line := range strings.Lines(u.ok(t, "nsenter-fds")) {
		if strings.Contains(line, u.dir) || strings.Contains(line, "socket:") {
			t.Errorf("leaked: %s", line)
		}
	}
	if r := u.run(t, "nsenter-exit", "9"); r.status != 9 {
		t.Errorf("status %d", r.status)
	}
	c := u.begin(t, "nsenter-stay")
	inner, _ := strconv.Atoi(c.first)
	_ = c.cmd.Process.Kill()
	eventually(t, "the child ends", func() bool { return gone(inner) })
	c.end()
	u.ok(t, "umount", dir)
}
