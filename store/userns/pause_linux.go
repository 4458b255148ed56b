package userns

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pauseFile is where rootless podman writes the pid of the process that holds its namespace, below its runtime directory.
const pauseFile = "libpod/tmp/pause.pid"

// findPause returns rootless podman's pause process, or false when there is none that can be trusted to be it.
func findPause(uid int) (process, bool) {
	for _, dir := range podmanRuntimeDirs(uid) {
		if p, ok := readPause(filepath.Join(dir, pauseFile), uid); ok {
			return p, true
		}
	}
	return process{}, false
}

// podmanRuntimeDirs are the directories podman may be using, likeliest first.
func podmanRuntimeDirs(uid int) []string {
	var dirs []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return []string{dir}
	}
	if dir := fmt.Sprintf("/run/user/%d", uid); privateDir(dir, uid) {
		dirs = append(dirs, dir)
	}
	return append(dirs, filepath.Join(os.TempDir(), fmt.Sprintf("podman-run-%d", uid)))
}

// readPause reads a pause file. The file must be this user's, as the directory may be open to all; and its pid may have been
// used again since, so the process must look like podman's in everything that can be seen.
func readPause(path string, uid int) (process, bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return process{}, false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return process{}, false
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != uid {
		return process{}, false
	}
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return process{}, false
	}
	start, err := startTime(pid)
	p := process{pid, start}
	return p, err == nil && p.valid(uid) == nil && namedPause(pid) && userIsRoot(pid, uid)
}

// namedPause reports whether a process has one of the names podman's pause process goes by.
func namedPause(pid int) bool {
	data, err := os.ReadFile(procPath(pid, "comm"))
	name := strings.TrimSpace(string(data))
	return err == nil && (name == "catatonit" || strings.HasPrefix(name, "podman"))
}

// userIsRoot reports whether a process's user namespace was made by this user, from our namespace, with the user as root.
func userIsRoot(pid, uid int) bool {
	data, err := os.ReadFile(procPath(pid, "uid_map"))
	if err != nil {
		return false
	}
	first := strings.Fields(strings.SplitN(string(data), "\n", 2)[0])
	if len(first) != 3 || first[0] != "0" || first[1] != strconv.Itoa(uid) {
		return false
	}
	ns, err := os.Open(procPath(pid, "ns/user"))
	if err != nil {
		return false
	}
	defer ns.Close()
	parent, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_PARENT)
	if err != nil {
		return false
	}
	defer unix.Close(parent)
	theirs, err1 := namespaceOf(fmt.Sprintf("/proc/self/fd/%d", parent))
	ours, err2 := namespaceOf("/proc/self/ns/user")
	return err1 == nil && err2 == nil && theirs == ours
}
