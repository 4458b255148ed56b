package layerdiff

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// stager builds the layer as a directory in the form overlay keeps on disk, where whiteouts are devices. It needs no other
// mark: every file has its content, every directory its own names. Everything in it belongs to the ids the container sees.
// Its methods may be called from several goroutines.
type stager struct {
	root int

	// What the kernel gives a new file here. Asking it once saves asking for every file, and needs no say in the umask,
	// which belongs to the whole process.
	uid, gid, masked uint32

	links   bool        // share files of the upper as hard links
	label   string      // SELinux label of the staging directory, for shared files
	noClone atomic.Bool // the file system cannot share extents
	byName  atomic.Bool // open files cannot be linked: that needs CAP_DAC_READ_SEARCH of the machine
}

const (
	probeName = ".kimg-probe"
	cloneSize = 64 << 10 // smaller files are quicker written than cloned
)

// newStager opens an empty directory to stage into. The caller closes the stager.
func newStager(path string, links bool) (*stager, error) {
	root, err := atfs.OpenRoot(path)
	if err != nil {
		return nil, kimg.Wrap(path, err)
	}
	s := &stager{root: root, links: links}
	if err := s.probe(); err != nil {
		s.close()
		return nil, kimg.Wrap(path, err)
	}
	return s, nil
}

func (s *stager) close() { closeRead(s.root) }

// probe learns how new files come out.
func (s *stager) probe() error {
	names, err := atfs.ReadDir(s.root)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return &kimg.Error{Class: kimg.ErrExists, Err: errors.New("the directory to stage into is not empty")}
	}
	// A default access list on the store's directories must not reach into the layer.
	if err := unix.Fremovexattr(s.root, aclDefault); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
		return err
	}
	labels, err := atfs.Xattrs(s.root, func(name string) bool { return name == selinuxName })
	if err != nil {
		return err
	}
	if len(labels) > 0 {
		s.label = labels[0].Value
	}
	st, err := atfs.Probe(s.root, probeName)
	s.uid, s.gid, s.masked = st.Uid, st.Gid, 0o777&^st.Mode
	return err
}

// staging names the path a step of staging failed for.
func (e *entry) staging(err error) error {
	if err == nil {
		return nil
	}
	return staging(e.path(), err)
}

func staging(path string, err error) error {
	return kimg.Wrap(kimg.Escape(path, 256), fmt.Errorf("staging it: %w", err))
}

// dir returns the staged directory, making it and those above it where they are not there yet.
func (s *stager) dir(d *dir) (int, error) {
	if d.parent == nil {
		return s.root, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.staged >= 0 {
		return d.staged, nil
	}
	at, err := s.dir(d.parent)
	if err != nil {
		return -1, err
	}
	if err = unix.Mkdirat(at, d.name, 0o700); err == nil {
		d.staged, err = atfs.OpenDir(at, d.name)
	}
	if err != nil {
		d.staged = -1
		return -1, staging(d.show(""), err)
	}
	return d.staged, nil
}

// finishDir gives a staged directory its final metadata, when nothing more will be put into it.
func (s *stager) finishDir(d *dir) error {
	err := s.setOwn(d.staged, d.uid, d.gid, d.attrs.layer)
	if err == nil {
		err = unix.Fchmod(d.staged, d.st.Mode&0o7777)
	}
	if err == nil {
		err = atfs.SetTimes(d.staged, d.time(d.st.Mtim))
	}
	if err != nil {
		return staging(d.show(""), err)
	}
	return nil
}

// setOwn gives what is staged its owner and its attributes, in this order: a change of owner takes capabilities away.
func (s *stager) setOwn(fd int, uid, gid uint32, attrs []atfs.Xattr) (err error) {
	if uid != s.uid || gid != s.gid {
		err = unix.Fchown(fd, int(uid), int(gid))
	}
	for _, x := range attrs {
		if err == nil {
			err = atfs.SetXattr(fd, x.Name, x.Value)
		}
	}
	return err
}

// needsChmod reports whether a new file did not come out with its mode: special bits are set last, since a change of
// owner clears them.
func (s *stager) needsChmod(e *entry) bool {
	mode := e.st.Mode & 0o7777
	return mode&^0o777 != 0 || mode&s.masked != 0 || len(e.attrs.layer) > 0
}

// create begins the staged copy of a regular file. The caller ends it with finish or closes it.
func (s *stager) create(e *entry) (int, error) {
	at, err := s.dir(e.dir)
	if err != nil {
		return -1, err
	}
	fd, err := atfs.Create(at, e.name, e.st.Mode&0o777)
	return fd, e.staging(err)
}

// finish gives the copy of a file its metadata, after its content, and closes it.
func (s *stager) finish(fd int, e *entry) error {
	err := s.setOwn(fd, e.uid, e.gid, e.attrs.layer)
	if err == nil && s.needsChmod(e) {
		err = unix.Fchmod(fd, e.st.Mode&0o7777)
	}
	if err == nil {
		err = atfs.SetTimes(fd, e.dir.time(e.st.Mtim))
	}
	if err2 := unix.Close(fd); err == nil {
		err = err2
	}
	return e.staging(err)
}

// smallFile stages a file whose content is at hand.
func (s *stager) smallFile(e *entry, fd int, content []byte) error {
	if done, err := s.share(e, fd); done || err != nil {
		return err
	}
	fd, err := s.create(e)
	if err != nil {
		return err
	}
	if err := atfs.Write(fd, content); err != nil {
		closeRead(fd)
		return e.staging(err)
	}
	return s.finish(fd, e)
}

// clone makes an empty staged file share the content of another; false when that cannot be done here.
func (s *stager) clone(to, from int, size int64) bool {
	if size < cloneSize || s.noClone.Load() {
		return false
	}
	if err := unix.IoctlFileClone(to, from); err != nil {
		s.noClone.Store(true)
		return false
	}
	return true
}

// share stages a file as a hard link to the upper's own, when that was asked for and the file is already what the layer
// must hold; false when it has to be copied. Files of the layers below are never shared. fd is the file, open, or negative.
func (s *stager) share(e *entry, fd int) (bool, error) {
	if !s.links || e.at != e.dir.fd || e.marked || e.uid != e.st.Uid || e.gid != e.st.Gid || !slices.Equal(e.attrs.layer, e.attrs.raw) {
		return false, nil
	}
	at, err := s.dir(e.dir)
	if err != nil {
		return false, err
	}
	if fd >= 0 && !s.byName.Load() {
		if unix.Linkat(fd, "", at, e.name, unix.AT_EMPTY_PATH) == nil {
			return true, s.relabel(e, at)
		}
		s.byName.Store(true) // and whatever else is wrong is found out below
	}
	switch err := unix.Linkat(e.dir.fd, e.name, at, e.name, 0); {
	case err == unix.EXDEV || err == unix.EPERM || err == unix.EMLINK || err == unix.ENOTSUP:
		return false, nil
	case atfs.Gone(err):
		return false, reading(e.path(), err)
	case err != nil:
		return false, e.staging(err)
	}
	// The name may have been given to another file since it was read.
	var st unix.Stat_t
	if err := atfs.Lstat(at, e.name, &st); err != nil {
		return false, e.staging(err)
	}
	if st.Ino != e.st.Ino || st.Dev != e.st.Dev {
		return false, fail(kimg.ErrBusy, e.path(), "changed while it was read")
	}
	return true, s.relabel(e, at)
}

// relabel gives a shared file the label of the store's layers.
func (s *stager) relabel(e *entry, at int) error {
	if s.label == "" {
		return nil
	}
	return e.staging(atfs.SetXattrAt(at, e.name, selinuxName, s.label))
}

// link stages a further name of a file whose first name is staged at first.
func (s *stager) link(e *entry, first string) error {
	at, err := s.dir(e.dir)
	if err != nil {
		return err
	}
	// Every directory on the way to first was made by this stager.
	return e.staging(unix.Linkat(s.root, first, at, e.name, 0))
}

// whiteout stages a deletion.
func (s *stager) whiteout(e *entry) error {
	at, err := s.dir(e.dir)
	if err != nil {
		return err
	}
	return e.staging(unix.Mknodat(at, e.name, unix.S_IFCHR, 0))
}

// node stages a symbolic link, a device or a FIFO.
func (s *stager) node(e *entry) error {
	if done, err := s.share(e, -1); done || err != nil {
		return err
	}
	at, err := s.dir(e.dir)
	if err != nil {
		return err
	}
	symlink := e.typ == unix.DT_LNK
	if symlink {
		err = unix.Symlinkat(e.link, at, e.name)
	} else {
		err = unix.Mknodat(at, e.name, e.st.Mode&^0o7000, int(e.st.Rdev))
	}
	if err == nil && (e.uid != s.uid || e.gid != s.gid) {
		err = unix.Fchownat(at, e.name, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	for _, x := range e.attrs.layer {
		if err == nil {
			err = atfs.SetXattrAt(at, e.name, x.Name, x.Value)
		}
	}
	if err == nil && !symlink && s.needsChmod(e) {
		err = unix.Fchmodat(at, e.name, e.st.Mode&0o7777, 0)
	}
	if err == nil {
		err = atfs.SetTimesAt(at, e.name, e.dir.time(e.st.Mtim))
	}
	return e.staging(err)
}
