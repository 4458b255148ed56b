// Package lab runs kimg and the tools it must agree with on private stores, as root or as an ordinary user, and compares
// what they show. The test binary itself is the tool for everything that must happen inside a namespace or under a mount:
// see [Main].
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
)

// EnvKimg names the kimg binary under test; without it bin/kimg of this tree.
const EnvKimg = "KIMG_BIN"

// limit ends a command that hangs.
const limit = 10 * time.Minute

// Kimg returns the path of the binary under test.
func Kimg(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv(EnvKimg); bin != "" {
		return bin
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir := wd; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			bin := filepath.Join(dir, "bin", "kimg")
			if _, err := os.Stat(bin); err != nil {
				testenv.Skip(t, "run make build first: %v", err)
			}
			return bin
		}
	}
	testenv.Skip(t, "%s names no binary", EnvKimg)
	return ""
}

// TempDir makes a directory that is removed at the end of the test, also when other users' ids own what is in it.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("KIMG_TEST_TMP"), "kimg-lab-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.RemoveAll(dir) == nil {
			return
		}
		cmd := exec.Command("rm", "-rf", dir)
		if !testenv.IsRoot() {
			cmd = exec.Command("buildah", "unshare", "rm", "-rf", dir)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("remove %s: %v\n%s", dir, err, out)
		}
	})
	return dir
}

// Result is what a command left behind.
type Result struct {
	Stdout, Stderr string
	Code           int           // exit status, 128+n after signal n
	Took           time.Duration // wall time
}

// Run runs a command to its end. Extra environment comes first.
func Run(t testing.TB, env []string, argv ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/"
	cmd.WaitDelay = time.Minute // what it left behind may have its output
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	r := Result{Stdout: strings.TrimSuffix(stdout.String(), "\n"), Stderr: stderr.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s hangs\n%s", strings.Join(argv, " "), &stderr)
	case errors.As(err, &exit):
		r.Code = ExitCode(exit.ProcessState)
	case err != nil:
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return r
}

// Must runs a command that has to succeed and returns its standard output.
func Must(t testing.TB, env []string, argv ...string) string {
	t.Helper()
	r := Run(t, env, argv...)
	if r.Code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(argv, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Store is a private store that kimg and its peers share.
type Store struct {
	Root, RunRoot string
	Bin           string   // the kimg used on it
	Storage       []string // the flags that say how it is kept; plain overlay
	Env           []string // for every command on it
	t             testing.TB
}

// NewStore makes an empty store below dir, or below a directory of its own when dir is empty.
func NewStore(t testing.TB, dir string) *Store {
	t.Helper()
	if dir == "" {
		dir = TempDir(t)
	}
	s := &Store{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Bin: Kimg(t), Storage: []string{"--storage-driver", "overlay"}, t: t}
	t.Cleanup(s.Unmount)
	return s
}

// On is the same store for a subtest: what fails there fails that test.
func (s *Store) On(t testing.TB) *Store {
	on := *s
	on.t = t
	return &on
}

// Unmount unmounts whatever kimg or a peer left mounted. Failures are not reported: the removal of the directory tells.
func (s *Store) Unmount() {
	s.Try("umount", "--all")
	Run(s.t, s.Env, s.PeerArgs("buildah", "umount", "--all")...)
	if testenv.IsRoot() {
		for end := time.Now().Add(time.Minute); s.busy() && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		}
		Run(s.t, nil, "umount", "-q", filepath.Join(s.Root, "overlay"))
	}
}

// busy reports whether a process has the store among its arguments: podman clears up after a container some time after rm has ended.
func (s *Store) busy() bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.ContainsFunc(lines, func(path string) bool {
		line, _ := os.ReadFile(path) // it may be gone
		return bytes.Contains(line, []byte(s.Root+"\x00"))
	})
}

// Args is the command line of kimg on this store.
func (s *Store) Args(args ...string) []string {
	return slices.Concat([]string{s.Bin, "--root", s.Root, "--runroot", s.RunRoot}, s.Storage, args)
}

// Try runs kimg and reports how it went.
func (s *Store) Try(args ...string) Result {
	s.t.Helper()
	return Run(s.t, s.Env, s.Args(args...)...)
}

// Kimg runs kimg, which has to succeed, and returns its standard output.
func (s *Store) Kimg(args ...string) string {
	s.t.Helper()
	return Must(s.t, s.Env, s.Args(args...)...)
}

// In runs a helper of this test binary under a container that kimg mounted: kimg mount CTR -- HELPER.
func (s *Store) In(ctr, helper string, args ...string) string {
	s.t.Helper()
	return Must(s.t, append(s.Env, HelperEnv(helper)), s.Args(append([]string{"mount", ctr, "--", self(s.t), UnderMount}, args...)...)...)
}

// Peer runs buildah or podman on the store, inside their own namespace when we are not root.
func (s *Store) Peer(tool string, args ...string) string {
	s.t.Helper()
	return Must(s.t, s.Env, s.PeerArgs(tool, args...)...)
}

// PeerArgs is the command line of buildah or podman on this store.
func (s *Store) PeerArgs(tool string, args ...string) []string {
	return Unshared(slices.Concat([]string{tool, "--root", s.Root, "--runroot", s.RunRoot}, s.Storage, args)...)
}

// Reference names an image of the store for skopeo.
func (s *Store) Reference(name string) string {
	return fmt.Sprintf("containers-storage:[overlay@%s+%s]%s", s.Root, s.RunRoot, name)
}

// Skopeo runs skopeo, inside buildah's namespace when we are not root.
func Skopeo(t testing.TB, args ...string) string {
	t.Helper()
	return Must(t, nil, Unshared(append([]string{"skopeo", "--insecure-policy"}, args...)...)...)
}

// Unshared is a command line that runs as (namespace) root, in the namespace of the peers.
func Unshared(argv ...string) []string {
	if testenv.IsRoot() {
		return argv
	}
	return append([]string{"buildah", "unshare"}, argv...)
}

// ImageTree is what a peer's mount of an image shows, as [Snapshot] lines.
func (s *Store) ImageTree(tool, image string) string {
	s.t.Helper()
	flags := fmt.Sprintf("%s --root %s --runroot %s --storage-driver overlay", tool, s.Root, s.RunRoot)
	script := fmt.Sprintf(`set -e; m=$(%s image mount %s); trap '%s image umount %s >/dev/null' EXIT; %s "$m"`, flags, image, flags, image, self(s.t))
	if tool == "buildah" {
		script = fmt.Sprintf(`set -e; c=$(%s from --pull-never %s); trap '%s rm "$c" >/dev/null' EXIT; m=$(%s mount "$c"); %s "$m"`, flags, image, flags, flags, self(s.t))
	}
	return Must(s.t, append(s.Env, HelperEnv("snapshot")), Unshared("sh", "-c", script)...)
}

// CheckClean fails the test unless kimg and the store library find the store sound.
func (s *Store) CheckClean() {
	s.t.Helper()
	if r := s.Try("check"); r.Code != 0 {
		s.t.Errorf("kimg check: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
