package store

import (
	"context"
	"errors"
	"os"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/mount"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
	"github.com/kimg/kimg/internal/failpoint"
)

// Mount mounts the container's tree, or counts one more user of the mount there is, and returns its path. A count left
// over from a mount that is gone is cleared first. The caller calls Unmount as often as Mount.
func (c *Container) Mount(ctx context.Context) (string, error) {
	if err := check(ctx); err != nil {
		return "", err
	}
	if err := c.heal(); err != nil {
		return "", err
	}
	before, err := c.s.st.Layer(c.LayerID)
	if err != nil {
		return "", wrap(c.Name, err)
	}
	path, err := c.s.st.Mount(c.ID, "") // "": the container's own label
	if err != nil && before.MountCount == 0 {
		c.dropUncounted(ctx)
	}
	if err != nil {
		return "", wrap(c.Name, err)
	}
	if ok, err := c.s.mounted(path); err != nil || !ok {
		return "", kimg.Errorf(kimg.ErrDamaged, c.Name, "%s is said to be mounted and is not: %v", path, err)
	}
	return path, nil
}

// Unmount counts one user of the mount less; the last one unmounts. A container that is not mounted is fine.
func (c *Container) Unmount(ctx context.Context) error {
	if err := check(ctx); err != nil {
		return err
	}
	if err := c.heal(); err != nil {
		return err
	}
	l, err := c.s.st.Layer(c.LayerID)
	if err != nil {
		return wrap(c.Name, err)
	}
	if l.MountCount == 0 {
		return nil
	}
	_, err = c.s.st.Unmount(c.ID, false)
	if errors.Is(err, storage.ErrLayerNotMounted) {
		return nil
	}
	return wrap(c.Name, err)
}

// Mounted returns where the container is mounted in this mount namespace and how many users of the mount are counted; "" and 0
// when it is not, whatever the count in the run root says.
func (c *Container) Mounted() (path string, n int, err error) {
	l, err := c.s.st.Layer(c.LayerID)
	if err != nil {
		return "", 0, wrap(c.Name, err)
	}
	if l.MountCount == 0 || l.MountPoint == "" {
		return "", 0, nil
	}
	ok, err := c.s.mounted(l.MountPoint)
	if err != nil || !ok {
		return "", 0, wrap(c.Name, err)
	}
	return l.MountPoint, l.MountCount, nil
}

// Quiet tells whether no mount of the container is counted, so that nobody writes to it. One in a mount namespace that this
// process is not in is class busy.
func (c *Container) Quiet() (bool, error) {
	l, err := c.s.st.Layer(c.LayerID)
	if err != nil {
		return false, wrap(c.Name, err)
	}
	if l.MountCount == 0 {
		return true, nil
	}
	if ok, err := c.s.mounted(l.MountPoint); err != nil || ok {
		return false, wrap(c.Name, err)
	}
	if pid := mountedElsewhere(c.LayerID); pid != 0 {
		return false, c.elsewhere(pid)
	}
	return false, nil
}

// dropUncounted unmounts what the library has mounted and then could not count, on a full disk: nobody else would.
func (c *Container) dropUncounted(ctx context.Context) {
	driver, err := c.s.st.GraphDriver()
	if err == nil {
		err = driver.Put(c.LayerID) // fine when nothing is mounted
	}
	if err != nil {
		c.s.log.WarnContext(ctx, "could not unmount", "container", c.Name, "error", err)
	}
}

// mounted tells whether a path the driver handed out is mounted in this mount namespace. Drivers other than overlay hand
// out directories, which need no mount.
func (s *Store) mounted(path string) (bool, error) {
	if s.st.GraphDriverName() != overlay {
		_, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	return mounted(path)
}

func mounted(path string) (bool, error) {
	ok, err := mount.Mounted(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return ok, err
}

// WithMount calls fn with the container mounted and unmounts it afterwards, also when ctx is cancelled or fn panics.
func (c *Container) WithMount(ctx context.Context, fn func(root string) error) (err error) {
	root, err := c.Mount(ctx)
	if err != nil {
		return err
	}
	var undo cleanup.Stack
	undo.Add(c.Unmount)
	defer func() { err = errors.Join(err, undo.Run(ctx)) }()
	return fn(root)
}

// Remove removes the container, its layer and its state, also when they are damaged. A container another engine runs
// things in (podman's, CRI-O's) is class busy: that engine keeps its own record of it.
func (c *Container) Remove(ctx context.Context) error {
	if c.Tool == ToolPodman || c.Tool == ToolCRIO {
		return kimg.Errorf(kimg.ErrBusy, c.Name, "is a container of %s; remove it there", c.Tool)
	}
	if _, err := c.Quiet(); kimg.ClassOf(err) == kimg.ErrBusy {
		return err
	}
	return c.s.Change(ctx, "rm", func(_ context.Context, tx *Tx) error {
		tx.RemoveContainer(c.ID)
		return nil
	})
}

// removeContainer removes a container as far as it is there.
func (s *Store) removeContainer(_ context.Context, id string) error {
	if err := failpoint.Here("container.rm.begin"); err != nil {
		return err
	}
	err := s.st.DeleteContainer(id)
	if err != nil && !errors.Is(err, storage.ErrNotAContainer) && !errors.Is(err, storage.ErrContainerUnknown) {
		return wrap("container "+id, err)
	}
	return failpoint.Here("container.rm.end")
}
