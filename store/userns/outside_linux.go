package userns

import (
	"os"
	"path/filepath"

	"github.com/kimg/kimg"
)

// holderEnv names the process that holds the namespace we were started in, for this process and its children: "pid:start".
const holderEnv = "_KIMG_USERNS_HOLDER"

// Kept reports whether a mount made now outlives this process: on the host always, in a namespace when another process
// than this one holds it (a keeper, podman's pause process, the shell of an unshare command).
func Kept() bool {
	if inInitialNamespace() {
		return true
	}
	_, ok := holder()
	return ok
}

// Outside returns the path by which the same user reaches a file of this namespace from outside, without privileges, as long
// as the process that holds the namespace lives. On the host that is the path itself. The path must be absolute. In a
// namespace that ends with this process there is no such path: class unsupported.
func Outside(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", kimg.Errorf(kimg.ErrInvalid, path, "not an absolute path")
	}
	if inInitialNamespace() {
		return path, nil
	}
	pid, ok := holder()
	if !ok {
		return "", kimg.Errorf(kimg.ErrUnsupported, path, "the namespace ends with this command")
	}
	return procPath(pid, "root") + filepath.Clean(path), nil
}

// holder returns the process that holds our mount namespace: the one Run joined, else our oldest ancestor in it.
func holder() (int, bool) {
	if p, err := parseProcess(os.Getenv(holderEnv)); err == nil {
		start, err := startTime(p.pid)
		if err == nil && start == p.start && inOurMounts(p.pid) {
			return p.pid, true
		}
	}
	found := 0
	for pid := os.Getppid(); pid > 0 && inOurMounts(pid); {
		found = pid
		parent, _, err := readStat(pid)
		if err != nil {
			break
		}
		pid = parent
	}
	return found, found != 0
}

func inOurMounts(pid int) bool {
	same, err := sameNamespace(pid, "mnt")
	return err == nil && same
}
