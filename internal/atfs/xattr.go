//go:build linux

package atfs

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattr is one extended attribute.
type Xattr struct{ Name, Value string }

// maxXattr is the kernel's limit of a list of attribute names and of one value.
const maxXattr = 64 << 10

// Xattrs returns the extended attributes of an open file that pass keep (nil: all), sorted by name. A file system
// without attributes has none.
func Xattrs(fd int, keep func(name string) bool) ([]Xattr, error) {
	var small [512]byte
	return xattrs(small[:], keep,
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// XattrsAt is Xattrs for a name, for files that are not opened: symbolic links, devices, FIFOs.
func XattrsAt(at int, name string, keep func(name string) bool) ([]Xattr, error) {
	var small [512]byte
	path := proc(at, name)
	return xattrs(small[:], keep,
		func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

func xattrs(small []byte, keep func(string) bool, list func([]byte) (int, error),
	get func(string, []byte) (int, error),
) ([]Xattr, error) {
	names, err := grow(small, list)
	if err == unix.ENOTSUP || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Xattr
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		if keep != nil && !keep(name) {
			continue
		}
		value, err := grow(small, func(buf []byte) (int, error) { return get(name, buf) })
		if err == unix.ENODATA { // removed meanwhile: the change shows in the change time
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Xattr{name, string(value)})
	}
	slices.SortFunc(out, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// grow calls fill with a small buffer and, when that does not do, with the largest there can be.
func grow(small []byte, fill func([]byte) (int, error)) ([]byte, error) {
	n, err := fill(small)
	if err == unix.ERANGE {
		small = make([]byte, maxXattr)
		n, err = fill(small)
	}
	if err != nil {
		return nil, err
	}
	return small[:n], nil
}

// SetXattr sets an attribute of an open file.
func SetXattr(fd int, name, value string) error {
	return unix.Fsetxattr(fd, name, []byte(value), 0)
}

// SetXattrAt sets an attribute of a name, which may be a symbolic link.
func SetXattrAt(at int, file, name, value string) error {
	return unix.Lsetxattr(proc(at, file), name, []byte(value), 0)
}
