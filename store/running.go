package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
)

// Running returns the id of the process in which podman or CRI-O runs the container; 0 when none does.
func (c *Container) Running() (pid int, err error) {
	if c.Tool != ToolPodman && c.Tool != ToolCRIO {
		return 0, nil
	}
	dir, err := c.s.st.ContainerRunDirectory(c.ID)
	if err != nil {
		return 0, wrap(c.Name, err)
	}
	data, err := safeopen.ReadFile(filepath.Join(dir, "pidfile"), 32)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, kimg.Wrap(c.Name, err)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return 0, nil // nothing there to wait for: the file is from an earlier run
	}
	return pid, nil
}
