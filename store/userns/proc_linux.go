package userns

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A pid alone names nobody: it is used again. A process is its pid and the time it started.
type process struct {
	pid   int
	start uint64 // in clock ticks since boot, field 22 of /proc/PID/stat
}

func procPath(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

// startTime returns when a process started.
func startTime(pid int) (uint64, error) {
	_, start, err := readStat(pid)
	return start, err
}

// readStat returns the parent and the start time of a process.
func readStat(pid int) (parent int, start uint64, err error) {
	data, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return 0, 0, err
	}
	// The second field is the command in parentheses and may hold anything, parentheses and spaces too.
	i := bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("%s: not understood", procPath(pid, "stat"))
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return parent, start, err
}

// ownedBy reports whether real, effective and saved user of a process are all this one.
func ownedBy(pid, uid int) bool {
	data, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		ids, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		fields := strings.Fields(ids)
		for _, f := range fields {
			if f != strconv.Itoa(uid) {
				return false
			}
		}
		return len(fields) == 4
	}
	return false
}

// namespace identifies a namespace: device and inode of its file.
type namespace struct{ dev, ino uint64 }

func namespaceOf(path string) (namespace, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespace{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return namespace{uint64(st.Dev), st.Ino}, nil
}

// sameNamespace reports whether a process is in our namespace of a type ("user", "mnt").
func sameNamespace(pid int, kind string) (bool, error) {
	theirs, err := namespaceOf(procPath(pid, "ns/"+kind))
	if err != nil {
		return false, err
	}
	ours, err := namespaceOf("/proc/self/ns/" + kind)
	return err == nil && theirs == ours, err
}

// inInitialNamespace reports whether every id is mapped to itself here, as on a plain host.
func inInitialNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true // a kernel without user namespaces has only the initial one
	}
	f := strings.Fields(string(data))
	return len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}

// identity is who runs us, as seen from outside the namespace.
type identity struct{ uid, gid int }

// String is the form of a process in records and in the environment: "pid:start".
func (p process) String() string { return fmt.Sprintf("%d:%d", p.pid, p.start) }

func parseProcess(text string) (process, error) {
	pid, start, ok := strings.Cut(text, ":")
	n, err1 := strconv.Atoi(pid)
	t, err2 := strconv.ParseUint(start, 10, 64)
	if !ok || err1 != nil || err2 != nil || n <= 1 {
		return process{}, fmt.Errorf("not a process: %.64q", text)
	}
	return process{n, t}, nil
}
