package userns

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What containers/storage reads once per process, so it must be there from the start.
const (
	configuredEnv  = "_CONTAINERS_USERNS_CONFIGURED"
	rootlessUIDEnv = "_CONTAINERS_ROOTLESS_UID"
	rootlessGIDEnv = "_CONTAINERS_ROOTLESS_GID"
)

// environment returns env with what containers/storage and we must know in the child, each name once.
func environment(env []string, who identity, holder process, s stage) []string {
	out := make([]string, 0, len(env)+6)
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case stageEnv, nameEnv, holderEnv, configuredEnv, rootlessUIDEnv, rootlessGIDEnv:
			continue
		}
		out = append(out, e)
	}
	out = append(out, configuredEnv+"=done", rootlessUIDEnv+"="+strconv.Itoa(who.uid), rootlessGIDEnv+"="+strconv.Itoa(who.gid))
	if holder.pid != 0 {
		out = append(out, holderEnv+"="+holder.String())
	}
	return append(out, s.env())
}

// systemStore is where root's containers are kept; containers/storage uses it for whoever is root.
const systemStore = "/var/lib/containers"

// adopt tells containers/storage whose containers are meant in a namespace that no container tool made (unshare -r): root
// there is an ordinary user, who cannot write to the system's store and means the one at home. In a container root has a
// system of its own, and nothing is changed. This must happen before containers/storage looks, which it does only once.
func adopt() {
	for _, name := range []string{configuredEnv, rootlessUIDEnv, rootlessGIDEnv} {
		if os.Getenv(name) != "" {
			return
		}
	}
	if os.Geteuid() != 0 || inInitialNamespace() || !denied(systemStore) {
		return
	}
	uid, gid := outsideOf("/proc/self/uid_map"), outsideOf("/proc/self/gid_map")
	if uid == "" || uid == "0" || gid == "" {
		return
	}
	for name, value := range map[string]string{configuredEnv: "done", rootlessUIDEnv: uid, rootlessGIDEnv: gid} {
		if err := os.Setenv(name, value); err != nil {
			return
		}
	}
}

// outsideOf returns the id outside that is root inside, by an id map.
func outsideOf(idMap string) string {
	data, err := os.ReadFile(idMap)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "0" {
			return f[1]
		}
	}
	return ""
}

// denied reports whether this process has no right to write to a directory, or to make it. A read-only one is no answer.
func denied(dir string) bool {
	err := unix.Access(dir, unix.W_OK)
	if errors.Is(err, unix.ENOENT) && dir != "/" {
		return denied(filepath.Dir(dir))
	}
	return errors.Is(err, unix.EACCES)
}
