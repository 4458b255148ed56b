package store

import (
	"cmp"
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// dirFiles opens the files of a layer: in its own directory, or below when it is a mapped copy of another layer. It is for one goroutine.
type dirFiles []*dirFile

// dirFile opens files below one directory. The directory of the last file stays open, because most of the next ones lie there too.
type dirFile struct {
	root, at int    // at: -1 until the first file
	last     string // what at is called
}

func openDirs(dirs []string) (dirFiles, error) {
	var d dirFiles
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			d.close()
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		d = append(d, &dirFile{root: fd, at: -1})
	}
	return d, nil
}

func (d dirFiles) close() {
	for _, one := range d {
		one.leave()
		unix.Close(one.root)
	}
}

// open opens a regular file, and touches nothing that was something else when it looked. A link to a directory is followed as the
// unpacking process followed it, with the layer's directory as its root: never out of the layer.
func (d dirFiles) open(name string) (int, error) {
	for _, one := range d {
		fd, err := one.open(strings.TrimLeft(name, "/"))
		switch err {
		case nil:
			return fd, nil
		case unix.ENOENT, unix.ENOTDIR:
		case errNotRegular:
			return -1, kimg.Errorf(kimg.ErrIntegrity, kimg.Escape(name, 255), "%w", err)
		default:
			return -1, &os.PathError{Op: "open", Path: kimg.Escape(name, 255), Err: err}
		}
	}
	return -1, kimg.Errorf(kimg.ErrIntegrity, kimg.Escape(name, 255), "is missing from the layer's directory")
}

var errNotRegular = errors.New("is not a regular file any more")

func (d *dirFile) open(name string) (int, error) {
	dir, base := path.Split(name)
	if d.at < 0 || dir != d.last {
		at, err := atfs.OpenInRoot(d.root, cmp.Or(dir, "."))
		if err != nil {
			return -1, err
		}
		d.leave()
		d.at, d.last = at, dir
	}
	var st unix.Stat_t
	if err := atfs.Lstat(d.at, base, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errNotRegular
	}
	fd, err := atfs.OpenFile(d.at, base)
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, errNotRegular
	}
	return fd, nil
}

// leave closes the directory of the last file.
func (d *dirFile) leave() {
	if d.at >= 0 {
		unix.Close(d.at)
	}
}
