package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// site is one place where runs happen: a private store and room for the floor's copies.
type site struct {
	kimg, dir string
	sync      bool // durability is part of what is compared
	ctrs      []string
}

func (s *site) root() string    { return filepath.Join(s.dir, "root") }
func (s *site) runroot() string { return filepath.Join(s.dir, "run") }

func (s *site) storeFlags() []string {
	return []string{"--root", s.root(), "--runroot", s.runroot(), "--storage-driver", "overlay"}
}

// command is a kimg command line on the store.
func (s *site) command(args ...string) []string {
	return slices.Concat([]string{s.kimg}, s.storeFlags(), args)
}

func (s *site) buildah(args ...string) []string {
	return lab.Unshared(slices.Concat([]string{"buildah"}, s.storeFlags(), args)...)
}

func (s *site) label(name string) string {
	switch {
	case name == "kimg" && !s.sync:
		return "kimg --no-sync"
	case name == "floor" && s.sync:
		return "floor + sync -f"
	}
	return name
}

// base makes the image every container starts from.
func (s *site) base() error {
	tree := filepath.Join(s.dir, "base")
	for _, d := range []string{"etc", "srv", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/hostname"), []byte("bench\n"), 0o644); err != nil {
		return err
	}
	_, err := timed(nil, s.command("import", tree, "localhost/base")...)
	return err
}

// measure prepares a container with content nobody has seen and times what one contender makes of it. Each contender has a
// container of its own: a layer that the store already holds would be found and not written.
func (s *site) measure(name, change, round string) (usage, error) {
	ctr := name + round
	if _, err := timed(nil, s.command("from", "--name", ctr, "localhost/base")...); err != nil {
		return usage{}, err
	}
	s.ctrs = append(s.ctrs, ctr)
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	if _, err := timed([]string{lab.HelperEnv("change")}, s.command("mount", ctr, "--", self, lab.UnderMount, "seed="+s.dir+ctr, change)...); err != nil {
		return usage{}, err
	}
	if s.sync { // nobody pays for what another one wrote
		if _, err := timed(nil, "sync", "-f", s.dir); err != nil {
			return usage{}, err
		}
	}
	tmp := []string{"TMPDIR=" + s.dir}
	switch name {
	case "kimg":
		args := []string{"commit", ctr, "localhost/result-" + ctr}
		if !s.sync {
			args = append([]string{"--no-sync"}, args...)
		}
		return timed(tmp, s.command(args...)...)
	case "buildah": // the container is its own kind, on the same content
		return s.measureBuildah(ctr, tmp)
	}
	return s.measureFloor(ctr)
}

// measureBuildah gives the content of kimg's container to one that buildah can commit.
func (s *site) measureBuildah(ctr string, env []string) (usage, error) {
	from, err := output(s.buildah("from", "--pull-never", "--name", "b-"+ctr, "localhost/base")...)
	if err != nil {
		return usage{}, err
	}
	upper, err := s.upper(ctr)
	if err != nil {
		return usage{}, err
	}
	script := `set -e; d=$("$@" mount "$c"); cp -a "$u/." "$d/"; "$@" umount "$c" >/dev/null`
	if _, err := timed([]string{"c=" + from, "u=" + upper}, lab.Unshared(append([]string{"sh", "-c", script, "-", "buildah"}, s.storeFlags()...)...)...); err != nil {
		return usage{}, err
	}
	if s.sync {
		if _, err := timed(nil, "sync", "-f", s.dir); err != nil {
			return usage{}, err
		}
	}
	return timed(env, s.buildah("commit", "-q", from, "localhost/result-"+ctr)...)
}

// floor reads a tree once, hashes it and writes it once, with the tools every machine has. A named pipe instead of a
// process substitution, because the hash has to be waited for.
const floor = `set -euo pipefail
mkdir "$NEW"; mkfifo "$NEW.pipe"
openssl dgst -sha256 <"$NEW.pipe" >/dev/null & hash=$!
tar -C "$UPPER" --xattrs -cf - . | tee "$NEW.pipe" | tar --xattrs -xf - -C "$NEW"
wait $hash
if [ "$SYNC" = 1 ]; then sync -f "$NEW"; fi`

func (s *site) measureFloor(ctr string) (usage, error) {
	upper, err := s.upper(ctr)
	if err != nil {
		return usage{}, err
	}
	env := []string{"UPPER=" + upper, "NEW=" + filepath.Join(s.dir, "floor-"+ctr), "SYNC=0"}
	if s.sync {
		env[2] = "SYNC=1"
	}
	return timed(env, lab.Unshared("bash", "-c", floor)...)
}

// upper is where a container's own files lie.
func (s *site) upper(ctr string) (string, error) {
	merged, err := output(s.command("mount", ctr, "--", "printenv", "KIMG_ROOT")...)
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(merged), "diff"), nil
}

// forget removes what the runs so far left, but not the base.
func (s *site) forget() error {
	script := `"$@" images --quiet | grep -v "$("$@" images --quiet localhost/base)" | xargs -r "$@" rmi >/dev/null`
	for _, c := range s.ctrs {
		if _, err := timed(nil, s.command("rm", c)...); err != nil {
			return err
		}
	}
	s.ctrs = nil
	if _, err := timed(nil, s.buildah("rm", "--all")...); err != nil {
		return err
	}
	if _, err := timed(nil, lab.Unshared(append([]string{"sh", "-c", script, "-", "buildah"}, s.storeFlags()...)...)...); err != nil {
		return err
	}
	floors, err := filepath.Glob(filepath.Join(s.dir, "floor-*"))
	if err != nil || len(floors) == 0 {
		return err
	}
	_, err = timed(nil, lab.Unshared(append([]string{"rm", "-rf"}, floors...)...)...)
	return err
}

// remove takes the whole place away.
func (s *site) remove() {
	_, _ = timed(nil, s.command("umount", "--all")...)
	if testenv.IsRoot() {
		_, _ = timed(nil, "umount", "-q", filepath.Join(s.root(), "overlay"))
	}
	if _, err := timed(nil, lab.Unshared("rm", "-rf", s.dir)...); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// helper runs one of the lab's helpers.
func (s *site) helper(name string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = timed([]string{lab.HelperEnv(name)}, lab.Unshared(append([]string{self}, args...)...)...)
	return err
}

// usage is what one run took.
type usage struct {
	wall    time.Duration
	cpu     time.Duration // user and system, of all processes
	peak    int64         // KiB, of the largest process
	written int64         // bytes dirtied on disks by all processes
}

// timed runs a command to its end.
func timed(env []string, argv ...string) (usage, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start)}
	if err != nil {
		return u, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, &stderr)
	}
	r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return u, errors.New("no resource usage on this system")
	}
	u.peak, u.written = r.Maxrss, r.Oublock*512
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u, nil
}

func output(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	return strings.TrimSpace(string(out)), err
}

func wall(runs []usage) []time.Duration {
	var all []time.Duration
	for _, u := range runs {
		all = append(all, u.wall)
	}
	slices.Sort(all)
	return all
}

func median(runs []usage) time.Duration {
	if len(runs) == 0 {
		return 0
	}
	return middle(wall(runs))
}

func middle(sorted []time.Duration) time.Duration {
	return (sorted[len(sorted)/2] + sorted[(len(sorted)-1)/2]) / 2
}

func peak(runs []usage) (most int64) {
	for _, u := range runs {
		most = max(most, u.peak)
	}
	return most
}

// written is the median of the bytes written.
func written(runs []usage) int64 {
	var all []int64
	for _, u := range runs {
		all = append(all, u.written)
	}
	slices.Sort(all)
	return all[len(all)/2]
}
