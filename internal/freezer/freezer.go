// Package freezer stops all processes of a container for a while, through the freezer of cgroup v1 or v2.
package freezer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kimg/kimg"
)

const (
	patience = 5 * time.Second // for all processes to stop
	interval = 2 * time.Millisecond
)

// Freeze freezes the cgroup of the container with this id, one of whose processes is pid, and returns when all its processes
// have stopped. The caller calls thaw, which may be called again and then does nothing. A container that is frozen
// already stays so, and thaw leaves it alone.
//
// Only a cgroup that has the container's id in its path is frozen: no other is its own, and this process is never in it. Where there
// is none, or it may not be written to, the class is unsupported or denied, and nothing is frozen.
func Freeze(ctx context.Context, pid int, id string) (thaw func() error, err error) {
	return freeze(ctx, "/proc", pid, id)
}

func freeze(ctx context.Context, proc string, pid int, id string) (func() error, error) {
	g, err := find(proc, pid, id)
	if err != nil {
		return nil, err
	}
	frozen, err := g.asked()
	if err != nil {
		return nil, kimg.Wrap(g.dir, err)
	}
	thaw := func() error { return nil }
	if !frozen {
		thaw = sync.OnceValue(func() error { return kimg.Wrap(g.dir, g.write(g.thawed)) })
	}
	for end := time.Now().Add(patience); err == nil; {
		last := time.Now().After(end) // this process may have stood still, too: it looks once more
		if !frozen {
			err = g.write(g.frozen) // of v1 it may take more than one
		}
		switch {
		case err != nil:
		case g.stopped():
			return thaw, nil
		case last:
			err = &kimg.Error{Class: kimg.ErrBusy, Err: fmt.Errorf("not all processes stopped within %v", patience)}
		}
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(interval):
		}
	}
	return nil, kimg.Wrap(g.dir, errors.Join(err, thaw()))
}

// group is the cgroup of a container.
type group struct {
	dir            string
	control        string // the file that is written to
	frozen, thawed string // what is written
	state, stop    string // the file that tells, and the line that says that all have stopped
}

func (g group) write(what string) error {
	f, err := os.OpenFile(filepath.Join(g.dir, g.control), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(what)
	return errors.Join(err, f.Close())
}

// asked reports whether somebody has frozen the group already.
func (g group) asked() (bool, error) {
	data, err := os.ReadFile(filepath.Join(g.dir, g.control))
	return strings.TrimSpace(string(data)) != g.thawed, err
}

func (g group) stopped() bool {
	data, _ := os.ReadFile(filepath.Join(g.dir, g.state)) // what cannot be read has not stopped
	for line := range strings.Lines(string(data)) {
		if strings.TrimSpace(line) == g.stop {
			return true
		}
	}
	return false
}

// find finds the freezer of a container. On hosts with both versions that of v1 comes first: engines use it there.
func find(proc string, pid int, id string) (group, error) {
	none := kimg.Errorf(kimg.ErrUnsupported, "", "process %d is in no freezer cgroup of the container's own", pid)
	groups, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return group{}, kimg.Wrap("", err)
	}
	for _, v2 := range []bool{false, true} {
		for line := range strings.Lines(string(groups)) {
			fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // cgroups(7), "/proc files"
			if len(fields) != 3 || v2 != (fields[0] == "0") || !v2 && !contains(fields[1], "freezer") {
				continue
			}
			path, ok := own(fields[2], id)
			if !ok {
				continue
			}
			root, err := mountPoint(proc, v2)
			if err != nil || root == "" {
				return group{}, errors.Join(none, err)
			}
			dir := filepath.Join(root, path)
			if v2 {
				return group{dir, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"}, nil
			}
			return group{dir, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"}, nil
		}
	}
	return group{}, none
}

// own is the path of the outermost group that is the container's, as engines name them.
func own(path, id string) (string, bool) {
	at := strings.Index(path, id)
	if id == "" || at < 0 || strings.Contains(path, "/..") {
		return "", false
	}
	if end := strings.IndexByte(path[at:], '/'); end >= 0 {
		path = path[:at+end]
	}
	return path, true
}

// mountPoint is where this process sees the whole hierarchy; "" when it does not.
func mountPoint(proc string, v2 bool) (string, error) {
	f, err := os.Open(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return "", kimg.Wrap("", err)
	}
	defer f.Close()
	escaped := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, _ := strings.Cut(s.Text(), " - ") // proc_pid_mountinfo(5)
		at, what := strings.Fields(before), strings.Fields(after)
		if len(at) < 5 || len(what) < 3 || at[3] != "/" {
			continue
		}
		if v2 && what[0] == "cgroup2" || !v2 && what[0] == "cgroup" && contains(what[2], "freezer") {
			return escaped.Replace(at[4]), nil
		}
	}
	return "", s.Err()
}

// contains reports whether a list with commas has a word.
func contains(list, word string) bool {
	return strings.Contains(","+list+",", ","+word+",")
}
