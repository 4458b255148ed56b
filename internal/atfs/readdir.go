//go:build linux

package atfs

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Name is one name in a directory.
type Name struct {
	Name string
	Type uint8 // unix.DT_*; DT_UNKNOWN where the file system does not say
}

// The layout of struct linux_dirent64: inode, offset, record length, type, name.
const (
	direntLen  = 16
	direntType = 18
	direntName = 19
)

// ReadDir returns the names in an open directory, sorted by bytes, without "." and "..".
func ReadDir(fd int) ([]Name, error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	// Names are gathered in one string: two allocations for a directory, not one for each name.
	var text []byte
	var ends []int
	var types []uint8
	for buf := make([]byte, 32<<10); ; {
		var n int
		err := retry(func() (err error) { n, err = unix.Getdents(fd, buf); return err })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		for rest := buf[:n]; len(rest) > direntName; {
			length := int(binary.NativeEndian.Uint16(rest[direntLen:]))
			if length <= direntName || length > len(rest) {
				return nil, unix.EIO
			}
			name := rest[direntName:length]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				text = append(text, name...)
				ends = append(ends, len(text))
				types = append(types, rest[direntType])
			}
			rest = rest[length:]
		}
	}
	all, start := string(text), 0
	names := make([]Name, len(ends))
	for i, end := range ends {
		names[i] = Name{Name: all[start:end], Type: types[i]}
		start = end
	}
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.Name, b.Name) })
	return names, nil
}
