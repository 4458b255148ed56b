package store

import (
	"context"
	"errors"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
)

// Mount mounts the image's tree read-only, or counts one more user of the mount there is, and returns its path. The
// caller calls Unmount as often as Mount.
func (i *Image) Mount(ctx context.Context) (string, error) {
	if err := check(ctx); err != nil {
		return "", err
	}
	if i.TopLayer == "" {
		return "", kimg.Errorf(kimg.ErrNotFound, i.label(), "the image has no layers to mount")
	}
	if err := i.top().heal(); err != nil {
		return "", err
	}
	path, err := i.s.st.MountImage(i.ID, []string{"ro"}, "")
	return path, wrap(i.label(), err)
}

// Unmount counts one user of the image's mount less; the last one unmounts. An image that is not mounted is fine.
func (i *Image) Unmount(ctx context.Context) error {
	if err := check(ctx); err != nil || i.TopLayer == "" {
		return err
	}
	if err := i.top().heal(); err != nil {
		return err
	}
	if l, err := i.s.st.Layer(i.TopLayer); err != nil || l.MountCount == 0 {
		return wrap(i.label(), err)
	}
	_, err := i.s.st.UnmountImage(i.ID, false)
	if errors.Is(err, storage.ErrLayerNotMounted) {
		return nil
	}
	return wrap(i.label(), err)
}

// top is the newest layer with the means of a container, whose mounts are counted in the same way.
func (i *Image) top() *Container { return &Container{Name: i.label(), LayerID: i.TopLayer, s: i.s} }
