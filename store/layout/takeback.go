package layout

import (
	"bytes"
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// TakeBack undoes a Commit that succeeded, until Close: everything is as it was before. When somebody has written there
// since, everything stays: class busy. Cancelling ctx has no effect. Without such a Commit it does nothing.
func (d *Destination) TakeBack(ctx context.Context) error {
	if d.published == nil {
		return nil
	}
	return kimg.Wrap(d.path, d.takeBack(context.WithoutCancel(ctx)))
}

func (d *Destination) takeBack(ctx context.Context) error {
	if err := d.acquire(ctx); err != nil {
		return err
	}
	defer unix.Flock(int(d.root.Fd()), unix.LOCK_UN)
	now, err := readBounded(d.root, d.form.document())
	if err != nil {
		return err
	}
	if !bytes.Equal(now, d.document) {
		return kimg.Errorf(kimg.ErrBusy, "", "another process has written to it since: the new image stays")
	}
	p := d.published
	d.published = nil
	return p.Undo(ctx)
}

// patience is how often a lock that another process holds is asked for.
const patience = 10 * time.Millisecond

// acquire waits until no other process gives names in the directory.
func (d *Destination) acquire(ctx context.Context) error {
	for {
		err := unix.Flock(int(d.root.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return context.Cause(ctx)
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(patience):
		}
	}
}
