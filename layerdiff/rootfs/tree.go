package rootfs

import (
	"context"
	"crypto/sha256"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/tarmember"
	"github.com/kimg/kimg/layerdiff"
)

// Tree returns the proof of a directory: a mounted image or container, or layers unpacked one over the other. It follows
// no link, needs permission to read everything (class denied), and fails with class busy when something changes meanwhile.
// A path that no layer can hold is class limit, an owner outside the id maps class unsupported.
func Tree(ctx context.Context, root string, o Options) (Proof, error) {
	fd, err := atfs.OpenRoot(root)
	if err != nil {
		return Proof{}, kimg.Wrap(root, err)
	}
	w := walker{ctx: ctx, o: o, r: newRecorder(), first: map[inode]string{}, implied: map[string]bool{}, buf: make([]byte, 256<<10)}
	for _, dir := range o.Implied {
		w.implied[dir] = true
	}
	if err := w.dir(fd, ""); err != nil {
		return Proof{}, err
	}
	return Proof{Digest: w.r.digest(), Entries: w.r.entries, Implied: w.found}, nil
}

type inode struct{ dev, ino uint64 }

type walker struct {
	ctx     context.Context // of the one call the walk lives in
	o       Options
	r       *recorder
	first   map[inode]string // first names of files with several
	implied map[string]bool
	found   []string // those of implied that are there
	buf     []byte
}

// dir takes what is in an open directory, which it closes. prefix is empty or ends in a slash.
func (w *walker) dir(fd int, prefix string) error {
	defer unix.Close(fd)
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return reading(prefix, err)
	}
	names, err := atfs.ReadDir(fd)
	if err != nil {
		return reading(prefix, err)
	}
	for _, n := range names {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		path := prefix + n.Name
		if len(path) > tarmember.MaxName {
			return kimg.Errorf(kimg.ErrLimit, kimg.Escape("/"+path, 255), "a path of more than %d bytes", tarmember.MaxName)
		}
		err := w.name(fd, n.Name, path)
		if errors.Is(err, unix.ENOENT) && n.Type == unix.DT_CHR {
			continue // overlayfs lists a deletion that has nothing to delete, but does not show it
		}
		if err != nil {
			return err
		}
	}
	if err := unix.Fstat(fd, &after); err != nil {
		return reading(prefix, err)
	}
	return unchanged(prefix, &before, &after)
}

// unchanged fails when a file is not what it was.
func unchanged(path string, was, now *unix.Stat_t) error {
	if now.Ino != was.Ino || now.Mode != was.Mode || now.Size != was.Size || now.Mtim != was.Mtim || now.Ctim != was.Ctim {
		return kimg.Errorf(kimg.ErrBusy, kimg.Escape("/"+path, 255), "changed while it was read")
	}
	return nil
}

// name takes one name.
func (w *walker) name(at int, base, path string) error {
	var st unix.Stat_t
	if err := atfs.Lstat(at, base, &st); err != nil {
		return reading(path, err)
	}
	f := file{mode: st.Mode & 0o7777, mtime: int64(st.Mtim.Sec)}
	fd, err := -1, error(nil)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFREG:
		f.kind = 'f'
		fd, err = atfs.OpenFile(at, base)
	case unix.S_IFDIR:
		f.kind = 'd'
		fd, err = atfs.OpenDir(at, base)
	case unix.S_IFLNK:
		f.kind = 'l'
		f.content, err = atfs.ReadLink(at, base)
	case unix.S_IFIFO:
		f.kind = 'p'
	case unix.S_IFCHR, unix.S_IFBLK:
		f.kind, f.content = 'c', device(unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			f.kind = 'b'
		} else if atfs.IsWhiteout(&st) {
			return kimg.Errorf(kimg.ErrInvalid, kimg.Escape("/"+path, 255), "a mark of a deletion: this is a layer and not a merged tree")
		}
	}
	if err != nil {
		return reading(path, err)
	}
	if err := w.describe(&f, at, fd, base, path, &st); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // opened for reading: nothing to lose
		}
		return err
	}
	if f.kind == 'd' {
		w.r.add(path, f.sum(), "")
		return w.dir(fd, path+"/")
	}
	first := ""
	if st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first = w.first[id]; first == "" {
			w.first[id] = path
		}
	}
	w.r.add(path, f.sum(), first)
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return nil
}

// describe fills in the rest of a file, and makes sure that it is all of one file. fd is -1 for what is not opened.
func (w *walker) describe(f *file, at, fd int, base, path string, st *unix.Stat_t) (err error) {
	var all []atfs.Xattr
	if fd >= 0 {
		all, err = atfs.Xattrs(fd, layerdiff.InLayers)
	} else {
		all, err = atfs.XattrsAt(at, base, layerdiff.InLayers)
	}
	if err != nil {
		return reading(path, err)
	}
	f.uid, f.gid, f.xattrs, err = layerdiff.InContainer(w.o.UIDs, w.o.GIDs, "/"+path, st.Uid, st.Gid, all)
	if err != nil {
		return err
	}
	if f.kind == 'f' {
		if f.content, err = w.content(fd); err != nil {
			return reading(path, err)
		}
	}
	if f.implied = f.kind == 'd' && w.implied[path]; f.implied {
		w.found = append(w.found, path)
	}
	var now unix.Stat_t
	if fd >= 0 {
		err = unix.Fstat(fd, &now)
	} else {
		err = atfs.Lstat(at, base, &now)
	}
	if err != nil {
		return reading(path, err)
	}
	return unchanged(path, st, &now)
}

// content returns the digest of an open file's content.
func (w *walker) content(fd int) (string, error) {
	sum := sha256.New()
	for w.ctx.Err() == nil {
		n, err := atfs.Read(fd, w.buf, -1)
		if err != nil {
			return "", err
		}
		_, _ = sum.Write(w.buf[:n]) // a hash never fails
		if n < len(w.buf) {
			return string(sum.Sum(nil)), nil
		}
	}
	return "", context.Cause(w.ctx)
}

// reading classifies a failure to read something of the tree.
func reading(path string, err error) error {
	name := kimg.Escape("/"+path, 255)
	if atfs.Gone(err) {
		return kimg.Errorf(kimg.ErrBusy, name, "it vanished or was replaced while the tree was read: %w", err)
	}
	return kimg.Wrap(name, err)
}
