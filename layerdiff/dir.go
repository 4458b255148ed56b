package layerdiff

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// dir is a directory of the upper tree while something in it may still be read. It holds open file descriptors; the
// walk, each of its entries under way and each directory in it count as one user, and the last one to leave closes it.
type dir struct {
	parent *dir
	name   string // its own name; empty for the root
	path   string // with a slash at the end; empty for the root
	fd     int
	st     unix.Stat_t
	attrs  attrs
	uid    uint32 // as the container sees them
	gid    uint32

	lower  *view.Dir // what the merged view shows below it; nil when that is nothing
	hidden *view.Dir // what an opaque directory hides; only kept for Changes
	opaque bool      // the layers below have a directory here and this one hides it
	same   bool      // its metadata is that of the directory below: in the layer only if something in it is

	users atomic.Int32

	// Staging. The directory appears in the staged layer when something first needs it there.
	mu      sync.Mutex
	staged  int  // file descriptor, or -1
	written bool // its tar member is out; only for the goroutine that emits
}

// show returns the path of something in the directory for people; of the directory itself when name is empty.
func (d *dir) show(name string) string {
	if name == "" && d.path != "" {
		return "/" + d.path[:len(d.path)-1]
	}
	return "/" + d.path + name
}

// fds returns how many file descriptors the directory may hold.
func (d *dir) fds() int64 { return 2 + int64(d.lower.Len()+d.hidden.Len()) }

// tree is the upper directory over the lowers, open for one walk.
type tree struct {
	ids
	prefix     string
	keepHidden bool         // keep what opaque directories hide
	open       atomic.Int64 // file descriptors held by directories
}

// root opens the top of the walk.
func (t *tree) root(stack view.Stack) (*dir, error) {
	lower, err := stack.OpenLowers()
	if err != nil {
		return nil, err
	}
	fd, err := atfs.OpenRoot(stack.Upper)
	if err != nil {
		lower.Close()
		return nil, kimg.Wrap(stack.Upper, err)
	}
	d := &dir{fd: fd, staged: -1, lower: lower, written: true}
	d.users.Store(1)
	t.open.Add(d.fds())
	if err := retryStat(fd, &d.st); err != nil {
		t.close(d)
		return nil, kimg.Wrap(stack.Upper, err)
	}
	return d, nil
}

func retryStat(fd int, st *unix.Stat_t) error {
	for {
		if err := unix.Fstat(fd, st); err != unix.EINTR {
			return err
		}
	}
}

// enter opens a directory of parent and finds out what is below it. The caller leaves it.
func (t *tree) enter(parent *dir, name string) (*dir, error) {
	path := parent.show(name)
	fd, err := atfs.OpenDir(parent.fd, name)
	if err != nil {
		return nil, reading(path, err)
	}
	d := &dir{parent: parent, name: name, path: parent.path + name + "/", fd: fd, staged: -1}
	d.users.Store(1)
	parent.users.Add(1)
	if err := t.describe(d, path); err != nil {
		t.open.Add(d.fds())
		t.close(d)
		parent.users.Add(-1) // the caller is still in it
		return nil, err
	}
	t.open.Add(d.fds())
	return d, nil
}

// describe fills in what enter needs to know.
func (t *tree) describe(d *dir, path string) error {
	if err := retryStat(d.fd, &d.st); err != nil {
		return reading(path, err)
	}
	all, err := atfs.Xattrs(d.fd, wanted)
	if err != nil {
		return reading(path, err)
	}
	name := func() string { return path }
	if d.attrs, err = t.attributes(name, all); err != nil {
		return err
	}
	if d.uid, d.gid, err = t.owner(name, d.st.Uid, d.st.Gid); err != nil {
		return err
	}
	opaque, err := view.Marks(t.prefix, d.attrs.own, true)
	if err != nil {
		return kimg.Wrap(kimg.Escape(path, 256), err)
	}
	if t.keepHidden && d.parent.hidden != nil {
		if d.hidden, err = d.parent.hidden.Child(d.name); err != nil {
			return below(path, err)
		}
	}
	if d.lower, err = d.parent.lower.Child(d.name); err != nil {
		return below(path, err)
	}
	if d.lower == nil {
		return nil
	}
	if opaque {
		d.opaque = true
		if t.keepHidden {
			d.hidden = d.lower
		} else {
			d.lower.Close()
		}
		d.lower = nil
		return nil
	}
	d.same, err = t.sameDir(d, d.lower.Top())
	return below(path, err)
}

// sameDir reports whether a directory has the metadata of the one below it.
func (t *tree) sameDir(d *dir, lower int) (bool, error) {
	var st unix.Stat_t
	if err := retryStat(lower, &st); err != nil {
		return false, err
	}
	if st.Mode != d.st.Mode || st.Mtim != d.st.Mtim || !t.ids.same(d.st.Uid, d.st.Gid, st.Uid, st.Gid) {
		return false, nil
	}
	attrs, err := atfs.Xattrs(lower, foreign)
	return err == nil && d.attrs.same(attrs), err
}

// foreign reports whether an attribute counts when two files are compared.
func foreign(name string) bool { return wanted(name) && !view.Own(name) }

// close closes a directory that nobody uses any more.
func (t *tree) close(d *dir) {
	t.open.Add(-d.fds())
	d.lower.Close()
	d.hidden.Close()
	_ = unix.Close(d.fd) // opened for reading: nothing to lose
	if d.staged >= 0 {
		_ = unix.Close(d.staged)
	}
}

// unchanged reports whether a directory still has the times it was opened with.
func (d *dir) unchanged() error {
	var now unix.Stat_t
	if err := retryStat(d.fd, &now); err != nil {
		return reading(d.show(""), err)
	}
	if now.Mtim != d.st.Mtim || now.Ctim != d.st.Ctim {
		return fail(kimg.ErrBusy, d.show(""), "changed while it was read")
	}
	return nil
}

// errUnreadable marks a failure that SkipUnreadable turns into a listed path.
var errUnreadable = errors.New("it may not be read")

// reading classifies a failure to read something of the upper tree.
func reading(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case atfs.Gone(err):
		return fail(kimg.ErrBusy, path, "it vanished or was replaced while the tree was read: %w", err)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return fail(kimg.ErrDenied, path, "%w: %w", errUnreadable, err)
	}
	return kimg.Wrap(kimg.Escape(path, 256), err)
}

// below names the lower layers in a failure to read them.
func below(path string, err error) error {
	if err == nil {
		return nil
	}
	return kimg.Wrap(kimg.Escape(path, 256), fmt.Errorf("in a lower layer: %w", err))
}
