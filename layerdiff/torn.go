package layerdiff

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// A file that changes while it is read is torn: what was read belongs to no moment. As long as nothing of it has gone to the
// hash it is read again, after a wait in which its writer may finish. That is so for files that are read ahead, and for
// all others until their header is out; from then on the layer cannot be made any more, and the error names the file.
//
// A file's times change when a write begins, not when it ends, and on older kernels with a clock tick only. So of a
// tree that somebody may write to, a file that changed just now counts as torn as well, until it has rested, and a write
// call that goes on is waited for, however long it takes.
const (
	tornRetries = 3
	tornRest    = 20 * time.Millisecond // before each retry: longer than any kernel's clock tick
)

// errTorn is in errors of class busy about such a file.
var errTorn = errors.New("changed while it was read")

// retried does what reads an entry until that is not torn. The entry is as the walk met it each time.
func (x *run) retried(e *entry, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if try == tornRetries || !errors.Is(err, errTorn) {
			return err
		}
		select {
		case <-time.After(tornRest):
		case <-x.ctx.Done():
			return x.ended()
		}
		*e = entry{dir: e.dir, name: e.name, typ: e.typ, at: e.at, head: -1}
	}
}

// settled opens a file that is to be streamed, and inspects it again if it is not what it was when it was inspected. The
// caller closes it.
func (m *emitter) settled(e *entry) (src int, err error) {
	was := *e
	return src, m.x.retried(e, func() (err error) {
		if e.kind == kindNone { // a retry
			fd, err := m.x.tree.inspect(e, make([]byte, 128<<10))
			if err != nil {
				return err
			}
			if fd >= 0 {
				closeRead(fd)
			}
			// What it is decides about more than its content, and has been acted on.
			if e.kind != kindFile || e.linked() != was.linked() || e.linked() && fileIDOf(&e.st) != fileIDOf(&was.st) {
				return fail(kimg.ErrBusy, e.path(), "became another file while the tree was read")
			}
			m.owner(e.uid, e.gid)
		}
		if src, err = e.open(); err != nil {
			return err
		}
		if err = e.recheck(src); err == nil {
			err = e.rested(src)
		}
		if err != nil {
			closeRead(src)
		}
		return err
	})
}

// rested fails for an open file of a live tree that has changed just now. Of another it waits for the end of a write call.
func (e *entry) rested(fd int) error {
	if !e.dir.live {
		return nil
	}
	if age := time.Since(time.Unix(e.content().Ctim.Unix())); age >= 0 && age < tornRest {
		return fail(kimg.ErrBusy, e.path(), "%w: somebody is writing to it", errTorn)
	}
	// The file systems whose reads do not take the lock of writes (ext4, tmpfs, btrfs) take it for this.
	if at, err := unix.Seek(fd, 0, unix.SEEK_DATA); err == nil && at > 0 {
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		return reading(e.path(), err)
	}
	return nil
}
