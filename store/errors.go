package store

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"

	"github.com/kimg/kimg"
)

// classes maps the errors of containers/storage to ours. What is not listed keeps the class of the operating system's
// error number inside it.
var classes = []struct {
	is    error
	class kimg.Class
}{
	{storage.ErrImageUnknown, kimg.ErrNotFound},
	{storage.ErrContainerUnknown, kimg.ErrNotFound},
	{storage.ErrLayerUnknown, kimg.ErrNotFound},
	{storage.ErrNotAnID, kimg.ErrNotFound},
	{storage.ErrNotAnImage, kimg.ErrNotFound},
	{storage.ErrNotAContainer, kimg.ErrNotFound},
	{storage.ErrNotALayer, kimg.ErrNotFound},
	{storage.ErrLayerNotMounted, kimg.ErrNotFound},
	{storage.ErrDuplicateName, kimg.ErrExists},
	{storage.ErrDuplicateID, kimg.ErrExists},
	{storage.ErrImageUsedByContainer, kimg.ErrBusy},
	{storage.ErrLayerUsedByContainer, kimg.ErrBusy},
	{storage.ErrLayerUsedByImage, kimg.ErrBusy},
	{storage.ErrLayerHasChildren, kimg.ErrBusy},
	{storage.ErrStoreIsReadOnly, kimg.ErrReadOnly},
	{storage.ErrNotSupported, kimg.ErrUnsupported},
	{drivers.ErrNotSupported, kimg.ErrUnsupported},
	{drivers.ErrPrerequisites, kimg.ErrUnsupported},
	{drivers.ErrIncompatibleFS, kimg.ErrUnsupported},
	{storage.ErrInvalidMappings, kimg.ErrInvalid},
	{storage.ErrInvalidBigDataName, kimg.ErrInvalid},
	{storage.ErrIncompleteOptions, kimg.ErrInvalid},
	{storage.ErrParentIsContainer, kimg.ErrInvalid},
	{storage.ErrDuplicateImageNames, kimg.ErrDamaged},
	{storage.ErrDuplicateLayerNames, kimg.ErrDamaged},
	{storage.ErrParentUnknown, kimg.ErrDamaged},
	{storage.ErrLoadError, kimg.ErrDamaged},
	{storage.ErrSizeUnknown, kimg.ErrDamaged},
	{storage.ErrDigestUnknown, kimg.ErrDamaged},
}

// wrap names the object an error of the library happened to and gives it its class. wrap(…, nil) is nil; an error that
// already has a class keeps it.
func wrap(object string, err error) error {
	var ours *kimg.Error
	if errors.As(err, &ours) && object == "" {
		return err
	}
	if err == nil || ours != nil {
		return kimg.Wrap(object, err)
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return &kimg.Error{Class: c.class, Object: object, Err: err}
		}
	}
	return kimg.Wrap(object, err)
}

// panicked is a panic that became an error.
type panicked struct{ err error }

func (p *panicked) Error() string { return p.err.Error() }
func (p *panicked) Unwrap() error { return p.err }

// Guarded calls fn, in a goroutine of a stage function, and turns a panic into an error. The library may hold its locks ever after: nobody
// may wait for what else uses the store, and [Store.Change] leaves it to the next [Open] to clean up when the stage function returns the
// error.
func Guarded(fn func() error) (panics bool, err error) {
	var p *panicked
	err = guarded("", fn)
	return errors.As(err, &p), err
}

// guarded calls fn and turns a panic into an error that is a [panicked]. The library panics when it cannot open a lock file:
// on a read-only file system, without permission, without file descriptors.
func guarded(object string, fn func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case runtime.Error:
			err = kimg.Errorf(kimg.ErrInternal, object, "%w", &panicked{r})
		case error:
			err = wrap(object, &panicked{r})
		default:
			err = kimg.Errorf(kimg.ErrInternal, object, "%w", &panicked{fmt.Errorf("%v", r)})
		}
	}()
	return fn()
}
