package store

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kimg/kimg"
)

// healWait bounds the wait for another process that clears counts right now.
const healWait = 10 * time.Second

// heal clears the count of a mount that is gone, because the process or the namespace that held it was killed. A mount that
// lives in a namespace this process is not in is class busy: mounted twice, the kernel would not keep the two apart. Files
// somebody wrote into the bare directory meanwhile are kept and named, not hidden below a new mount.
func (c *Container) heal() error {
	if stale, err := c.staleMount(); err != nil || stale == 0 {
		return err
	}
	if c.s.opened { // a store that was handed to us gets no files of ours
		lock, err := c.s.lockHealing()
		if err != nil {
			return wrap(c.Name, err)
		}
		defer lock.Close()
	}
	// Once more, as another process may just have done it. Then one count after the other: a process that mounts the
	// container in between adds its own and keeps it. Clearing all by force would unmount under its feet.
	stale, err := c.staleMount()
	if err != nil {
		return err
	}
	for range stale {
		if _, err := c.s.st.Unmount(c.LayerID, false); err != nil {
			return wrap(c.Name, err)
		}
	}
	return nil
}

// staleMount returns how many users are counted for a mount that does not exist: 0 when all is well.
func (c *Container) staleMount() (int, error) {
	l, err := c.s.st.Layer(c.LayerID)
	if err != nil {
		return 0, wrap(c.Name, err)
	}
	if l.MountCount == 0 || l.MountPoint == "" || !strings.HasPrefix(c.s.st.GraphDriverName(), "overlay") {
		return 0, nil // other drivers hand out directories, not mounts
	}
	if ok, err := mounted(l.MountPoint); err != nil || ok {
		return 0, wrap(c.Name, err)
	}
	if pid := mountedElsewhere(c.LayerID); pid != 0 {
		return 0, c.elsewhere(pid)
	}
	if entries, err := os.ReadDir(l.MountPoint); err == nil && len(entries) > 0 {
		if ok, err := mounted(l.MountPoint); err != nil || ok {
			return 0, wrap(c.Name, err) // another process was faster, and these are the container's files
		}
		return 0, kimg.Errorf(kimg.ErrDamaged, c.Name,
			"the mount at %s is gone, and files were written into the bare directory: move them away", l.MountPoint)
	}
	return l.MountCount, nil
}

// elsewhere says in whose mount namespace the container is mounted.
func (c *Container) elsewhere(pid int) error {
	return kimg.Errorf(kimg.ErrBusy, c.Name, "is mounted in another mount namespace, that of process %d", pid)
}

// lockHealing waits for the lock that lets one process clear counts at a time. Closing the file gives it back.
func (s *Store) lockHealing() (*os.File, error) {
	return waitLock(filepath.Join(s.st.RunRoot(), "kimg-heal.lock"), healWait)
}

// mountedElsewhere returns a process in another mount namespace in which a layer is mounted as the upper one, or 0. Of
// processes that may not be looked into nothing is known; they are other users', and have no business in this store.
func mountedElsewhere(layerID string) int {
	proc, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return 0
	}
	seen := map[string]bool{}
	if ours, err := os.Readlink("/proc/self/ns/mnt"); err == nil {
		seen[ours] = true
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		ns, err := os.Readlink(filepath.Join("/proc", name, "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		if namesLayer(filepath.Join("/proc", name, "mountinfo"), layerID) {
			return pid
		}
	}
	return 0
}

// namesLayer reports whether a mountinfo file has a mount of a layer. Its id is part of the mount point, and of the upper
// directory's path where a container's process sees the mount as its root directory; as a lower layer it goes by another name.
func namesLayer(path, layerID string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, "/"+layerID+"/") {
			return true
		}
		if err != nil {
			return false
		}
	}
}
