package layerdiff

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// dir is a directory of the tree while something in it may still be read. It holds open file descriptors; the walk, each
// of its entries under way and each directory in it count as one user, and the last one to leave closes it.
type dir struct {
	parent *dir
	name   string // its own name; empty for the root
	path   string // with a slash at the end; empty for the root
	fd     int    // in the upper directory; -1 when that does not have it
	st     unix.Stat_t
	attrs  attrs
	uid    uint32 // as the container sees them
	gid    uint32

	from  *view.Dir // the layers that show through the upper's directory; nil when none do
	base  *view.Dir // what the layer goes on top of; nil when there is no directory of that path
	whole bool      // from is not base: an opaque or redirected directory, of which every name has to be compared
	same  bool      // its metadata is that of the base's directory: in the layer only if something in it is
	live  bool      // somebody may be writing to the tree
	clamp int64     // latest time of anything in the layer, in seconds
	kept  string    // an attribute that the tree has and the layer has not

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
func (d *dir) fds() int64 {
	n := 2 + int64(d.from.Len())
	if d.whole {
		n += int64(d.base.Len())
	}
	return n
}

// top returns the file descriptor whose metadata is the directory's.
func (d *dir) top() int {
	if d.fd >= 0 {
		return d.fd
	}
	return d.from.Top()
}

// tree is a stack that is open for one walk.
type tree struct {
	ids
	stack     view.Stack
	prefix    string
	clamp     int64        // latest time of a file, in seconds
	lenient   bool         // unreadable files are left out
	live      bool         // Options.Live
	targets   []string     // Options.MountTargets
	cancelled func() error // why the walk should end early, or nil
	lowers    *view.Dir    // the root of the layers below the upper directory
	open      atomic.Int64 // file descriptors held by directories
	links     links
}

func newTree(stack view.Stack, o Options, cancelled func() error) *tree {
	clamp := int64(math.MaxInt64)
	if o.Clamp != nil {
		clamp = o.Clamp.Unix()
	}
	return &tree{
		clamp: clamp, ids: ids{o.UIDs, o.GIDs}, stack: stack, prefix: stack.Prefix(), lenient: o.SkipUnreadable, live: o.Live, targets: o.MountTargets, cancelled: cancelled,
	}
}

// root opens the top of the walk.
func (t *tree) root() (_ *dir, err error) {
	d := &dir{fd: -1, staged: -1, written: true, clamp: t.clamp, live: t.live}
	d.users.Store(1)
	defer func() {
		t.open.Add(d.fds())
		if err != nil {
			t.close(d)
		}
	}()
	if !t.stack.Plain {
		if d.from, err = view.Open(t.prefix, t.stack.Lowers); err != nil {
			return nil, err
		}
	}
	t.lowers, d.base = d.from, d.from
	if t.stack.Plain || t.stack.Base != nil {
		if d.base, err = view.Open(t.prefix, t.stack.Compared()); err != nil {
			return nil, err
		}
		if err := d.compare(); err != nil {
			return nil, kimg.Wrap("/", err)
		}
	}
	if t.stack.Upper == "" {
		return d, nil
	}
	if d.fd, err = atfs.OpenRoot(t.stack.Upper); err == nil {
		err = retryStat(d.fd, &d.st)
	}
	return d, kimg.Wrap(t.stack.Upper, err)
}

// compare finds out whether the layers that show through a directory are those it is compared with.
func (d *dir) compare() error {
	same, err := d.from.Same(d.base)
	if d.whole = !same; same && d.base != d.from {
		d.base.Close()
		d.base = d.from
	}
	return err
}

// time is the time that something in the directory, or itself, has in the layer.
func (d *dir) time(t unix.Timespec) unix.Timespec {
	if int64(t.Sec) < d.clamp {
		return t
	}
	clamped, err := unix.TimeToTimespec(time.Unix(d.clamp, 0))
	if err != nil {
		return t // a file's own seconds have the same type, so they fit
	}
	return clamped
}

func retryStat(fd int, st *unix.Stat_t) error {
	for {
		if err := unix.Fstat(fd, st); err != unix.EINTR {
			return err
		}
	}
}

// enter opens a directory of parent; at is the file descriptor of the directory that has it on top. The caller leaves it.
// A directory that cannot differ from the base is nil.
func (t *tree) enter(parent *dir, name string, at int) (*dir, error) {
	path := parent.show(name)
	d := &dir{parent: parent, name: name, path: parent.path + name + "/", fd: -1, staged: -1, clamp: parent.clamp, live: parent.live}
	if at == parent.fd {
		fd, err := atfs.OpenDir(parent.fd, name)
		if err != nil {
			return nil, reading(path, err)
		}
		d.fd = fd
	}
	d.users.Store(1)
	parent.users.Add(1)
	err := t.describe(d, path)
	t.open.Add(d.fds())
	if err == nil && (d.fd >= 0 || d.whole) {
		return d, nil
	}
	t.close(d)
	parent.users.Add(-1) // the caller is still in it
	return nil, err
}

// describe fills in what enter needs to know.
func (t *tree) describe(d *dir, path string) (err error) {
	var all []atfs.Xattr
	var m view.Marks
	name := func() string { return path }
	if d.fd >= 0 {
		if all, err = atfs.Xattrs(d.fd, wanted); err != nil {
			return reading(path, err)
		}
		if m, err = view.ReadMarks(t.prefix, all); err != nil {
			return kimg.Wrap(kimg.Escape(path, 256), err)
		}
	}
	if err := t.openBelow(d, m); err != nil {
		return below(path, err)
	}
	if d.fd < 0 && !d.whole {
		return nil
	}
	if d.fd < 0 {
		if d.from == nil {
			return reading(path, unix.ENOENT)
		}
		if all, err = atfs.Xattrs(d.top(), wanted); err == nil {
			m, err = view.ReadMarks(t.prefix, all)
		}
		if err != nil {
			return below(path, err)
		}
	}
	d.kept = m.Escaped
	if err := retryStat(d.top(), &d.st); err != nil {
		return reading(path, err)
	}
	if d.attrs, err = t.attributes(name, all); err != nil {
		return err
	}
	if d.uid, d.gid, err = t.owner(name, d.st.Uid, d.st.Gid); err != nil || d.base == nil {
		return err
	}
	d.same, err = t.sameDir(d, d.base.Top())
	return below(path, err)
}

// openBelow opens what shows through a directory with these marks, and what it is compared with.
func (t *tree) openBelow(d *dir, m view.Marks) (err error) {
	p := d.parent
	if d.base, err = p.base.Child(d.name); err != nil {
		return err
	}
	if !p.whole && !m.Opaque && m.Redirect == "" {
		d.from = d.base
		return nil
	}
	d.whole = true
	switch {
	case m.Opaque:
	case m.Redirect == "":
		d.from, err = p.from.Child(d.name)
	case m.Redirect[0] == '/':
		d.from, err = t.lowers.Child(m.Redirect)
	default:
		d.from, err = p.from.Child(m.Redirect)
	}
	if err != nil {
		return err
	}
	return d.compare()
}

// sameDir reports whether a directory has the metadata of the base's.
func (t *tree) sameDir(d *dir, base int) (bool, error) {
	var st unix.Stat_t
	if err := retryStat(base, &st); err != nil {
		return false, err
	}
	if st.Mode != d.st.Mode || st.Mtim != d.st.Mtim || !t.ids.same(d.st.Uid, d.st.Gid, st.Uid, st.Gid) {
		return false, nil
	}
	attrs, err := atfs.Xattrs(base, foreign)
	return err == nil && d.attrs.same(attrs), err
}

// foreign reports whether an attribute counts when two files are compared.
func foreign(name string) bool { return wanted(name) && !view.Own(name) }

// close closes a directory that nobody uses any more.
func (t *tree) close(d *dir) {
	t.open.Add(-d.fds())
	d.from.Close()
	if d.whole {
		d.base.Close()
	}
	if d.fd >= 0 {
		_ = unix.Close(d.fd) // opened for reading: nothing to lose
	}
	if d.staged >= 0 {
		_ = unix.Close(d.staged)
	}
}

// unchanged reports whether a directory of the upper still has the times it was opened with.
func (d *dir) unchanged() error {
	if d.fd < 0 {
		return nil
	}
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

// reading classifies a failure to read something of the tree.
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
