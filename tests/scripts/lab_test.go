// Package scripts drives the kimg binary: scripts for what every command does, and a table of what every command refuses.
// KIMG_BIN names the binary; without it, it is built. The same tests run as root and as an unprivileged user.
package scripts

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// binary is the kimg under test.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	syscall.Umask(0o022) // the usual one
	if binary = os.Getenv("KIMG_BIN"); binary == "" {
		dir, err := os.MkdirTemp("", "kimg-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		_ = os.Chmod(dir, 0o755) // other users run it too
		binary = filepath.Join(dir, "kimg")
		build := exec.Command("go", "build", "-o", binary, "../../cmd/kimg")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building kimg: %v\n%s", err, out)
			return 1
		}
	}
	binary, _ = filepath.Abs(binary)
	return m.Run()
}

// lab is a private store, and everything else that a run of kimg may touch.
type lab struct {
	dir  string // short: overlay's mount options and socket names have limits
	env  []string
	work string // scratch directory of the test; destinations are here
}

// newLab makes an empty store that storage.conf names, so that kimg and buildah both find it.
func newLab(t testing.TB) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ks")
	check(t, err)
	t.Cleanup(func() { destroy(t, dir) })
	return newLabIn(t, dir)
}

func newLabIn(t testing.TB, dir string) *lab {
	t.Helper()
	check(t, os.Chmod(dir, 0o755))
	l := &lab{dir: dir, work: filepath.Join(dir, "work")}
	for _, sub := range []string{"tmp", "work", "home", "xdg"} {
		check(t, os.Mkdir(filepath.Join(dir, sub), 0o700))
	}
	check(t, os.MkdirAll(filepath.Join(dir, "home/.config/containers"), 0o700))
	for name, text := range map[string]string{
		"storage.conf":                        fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", l.root(), l.runRoot()),
		"registries.conf":                     "", // whatever the machine's say
		"home/.config/containers/policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
	} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	l.env = []string{
		"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(dir, "xdg"), "TMPDIR=" + filepath.Join(dir, "tmp"), "LANG=C.UTF-8",
		"CONTAINERS_STORAGE_CONF=" + filepath.Join(dir, "storage.conf"), "CONTAINERS_REGISTRIES_CONF=" + filepath.Join(dir, "registries.conf"), "STORE=" + dir, "USER=" + os.Getenv("USER"),
	}
	return l
}

func (l *lab) root() string    { return filepath.Join(l.dir, "s") }
func (l *lab) runRoot() string { return filepath.Join(l.dir, "r") }

// destroy removes a lab with its mounts. Files of subordinate ids are removed by their owner: the root of the namespace.
func destroy(t testing.TB, dir string) {
	unmountBelow(dir)
	if os.Geteuid() == 0 {
		check(t, os.RemoveAll(dir))
		return
	}
	cmd := exec.Command(binary, "unshare", "sh", "-c", `umount "$0"/s/overlay/*/merged "$0"/s/overlay; rm -rf "$0"`, dir)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Join(dir, "xdg"), "CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"))
	_ = cmd.Run()
	if err := os.RemoveAll(dir); err != nil {
		t.Logf("left behind: %v", err)
	}
}

// unmountBelow unmounts what this user sees mounted below dir, the newest first.
func unmountBelow(dir string) {
	for _, at := range slices.Backward(mountsBelow(dir)) {
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
}

func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4]+"/", dir+"/") {
			list = append(list, f[4])
		}
	}
	return list
}

// result is one run of kimg.
type result struct {
	out, err string
	code     int
	took     time.Duration
}

// kimg runs the binary in the lab's scratch directory.
func (l *lab) kimg(args ...string) result {
	return l.command(exec.Command(binary, args...))
}

func (l *lab) command(cmd *exec.Cmd) result {
	var out, errs bytes.Buffer
	cmd.Env, cmd.Dir = append(l.env, cmd.Env...), l.work
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errs
	start := time.Now()
	err := cmd.Run()
	code := 0
	if err != nil {
		code = -1
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
	}
	return result{out.String(), errs.String(), code, time.Since(start)}
}

// must runs a command that has to work and returns its output without the newline.
func (l *lab) must(t testing.TB, args ...string) string {
	t.Helper()
	r := l.kimg(args...)
	if r.code != 0 {
		t.Fatalf("kimg %s: exit %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// refused checks a run that had to fail: nothing on standard output, one clean line with the class on standard error,
// the right code.
func refused(r result, code int, class string) error {
	switch {
	case r.code != code:
		return fmt.Errorf("exit %d, want %d: %s", r.code, code, r.err)
	case r.out != "":
		return fmt.Errorf("standard output says %q", r.out)
	case strings.Count(r.err, "\n") != 1 || !strings.HasSuffix(r.err, "\n"):
		return fmt.Errorf("not one line: %q", r.err)
	case strings.HasPrefix(r.err, `{"schema":1,"class":"`+class+`","op":"`) && json.Valid([]byte(r.err)): // --json
	case !strings.HasPrefix(r.err, "kimg: "+class+": "):
		return fmt.Errorf("not class %s: %s", class, r.err)
	case len(r.err) > 1100:
		return fmt.Errorf("%d bytes long", len(r.err))
	}
	for _, c := range strings.TrimSuffix(r.err, "\n") {
		if unicode.IsControl(c) {
			return fmt.Errorf("control character in %q", r.err)
		}
	}
	return nil
}

// snapshot is everything of a lab that a failure must not change: file names, modes, owners and content, and mounts.
type snapshot map[string]string

func (l *lab) snapshot() snapshot {
	s := snapshot{}
	_ = filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(l.dir, path)
		if err != nil {
			s[rel] = "unreadable" // of a subordinate id; it is the same before and after
			return nil
		}
		if skipped(rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		s[rel] = describe(path)
		return nil
	})
	for _, at := range mountsBelow(l.dir) {
		if at != filepath.Join(l.root(), "overlay") { // the store's own, there or not as the last tool left it
			s["mount "+at] = "mounted"
		}
	}
	return s
}

// skipped names what changes whenever a store is opened and means nothing: lock files, what the driver remembers about the
// kernel, and the run directory of the process that keeps a namespace.
func skipped(rel string) bool {
	base := filepath.Base(rel)
	return strings.HasSuffix(base, ".lock") || strings.HasSuffix(filepath.Dir(rel), "-locks") || base == "defaultNetworkBackend" || strings.HasPrefix(rel, "r/kimg") ||
		strings.HasPrefix(rel, "r/overlay/") ||
		strings.HasPrefix(rel, "xdg/") || strings.HasPrefix(rel, "home/.cache")
}

func describe(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return "unreadable"
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprint(info.Mode(), " ", st.Uid, ":", st.Gid, " ")
	switch {
	case info.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return text + "unreadable"
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, io.LimitReader(f, 16<<20)); err != nil {
			return text + "unreadable"
		}
		return fmt.Sprintf("%s%d %x", text, info.Size(), sum.Sum(nil))
	case info.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(path)
		return text + target
	}
	return text
}

// differs lists what changed between two snapshots, or nothing.
func (s snapshot) differs(after snapshot) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if now, ok := after[name]; !ok {
			fmt.Fprintf(&b, "gone: %s\n", name)
		} else if now != s[name] {
			fmt.Fprintf(&b, "changed: %s: %s -> %s\n", name, s[name], now)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := s[name]; !ok {
			fmt.Fprintf(&b, "left: %s: %s\n", name, after[name])
		}
	}
	return b.String()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// buildah runs buildah on the lab's store, or skips the test where there is none.
func (l *lab) buildah(t testing.TB, args ...string) string {
	t.Helper()
	testenv.Need(t, "buildah")
	args = append([]string{"buildah"}, args...)
	if os.Geteuid() != 0 {
		args = append([]string{"buildah", "unshare"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = l.env, l.work
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}
