package lab

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// untar is a helper: it applies uncompressed layer tars, in order, on an empty directory. It is a second implementation of
// the layer format, kept simple, to hold kimg's against; it trusts its input.
func untar(dir string, layers []string) error {
	for _, l := range layers {
		if err := applyLayer(dir, l); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return nil
}

func applyLayer(dir, layer string) error {
	f, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer f.Close()
	type folder struct {
		path string
		hdr  *tar.Header
	}
	var folders []folder
	fresh := map[string]bool{} // what this layer made: an opaque marker does not hide it
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, h.Name)
		if path == dir {
			continue
		}
		base := filepath.Base(path)
		if base == ".wh..wh..opq" {
			if err := hideBelow(filepath.Dir(path), fresh); err != nil {
				return err
			}
			continue
		}
		if gone, ok := strings.CutPrefix(base, ".wh."); ok {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(path), gone)); err != nil {
				return err
			}
			continue
		}
		fresh[path] = true
		if err := place(dir, path, h, r); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			folders = append(folders, folder{path, h})
		}
	}
	for _, d := range folders { // a directory's time changes while it is filled
		if err := setTime(d.path, d.hdr.ModTime); err != nil {
			return err
		}
	}
	return nil
}

func hideBelow(dir string, fresh map[string]bool) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if path := filepath.Join(dir, n.Name()); !fresh[path] {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func place(dir, path string, h *tar.Header, content io.Reader) error {
	old, err := os.Lstat(path)
	if err == nil && !(old.IsDir() && h.Typeflag == tar.TypeDir) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err = os.MkdirAll(path, 0o755)
		if err == nil && old != nil {
			err = dropXattrs(path)
		}
	case tar.TypeReg:
		err = writeFile(path, content)
	case tar.TypeSymlink:
		err = os.Symlink(h.Linkname, path)
	case tar.TypeLink:
		return os.Link(filepath.Join(dir, h.Linkname), path)
	case tar.TypeFifo:
		err = unix.Mkfifo(path, 0o600)
	case tar.TypeChar, tar.TypeBlock:
		if !testenv.IsRoot() {
			return nil // no user may make one, and no other tool does for him
		}
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		err = unix.Mknod(path, kind, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	default:
		return fmt.Errorf("unexpected entry type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(path, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(path, uint32(h.Mode&0o7777)); err != nil {
			return err
		}
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return setTime(path, h.ModTime)
}

func dropXattrs(path string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
		if name != "" && name != "security.selinux" {
			if err := unix.Lremovexattr(path, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeFile(path string, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

func setTime(path string, at time.Time) error {
	ts := unix.NsecToTimespec(at.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
