//go:build linux

package testimage

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Item describes one file of a tree.
type Item struct {
	Path   string
	Type   byte // as in Node
	Mode   uint32
	UID    uint32
	GID    uint32
	Size   int64
	Sec    int64 // modification time
	Nsec   int64
	Data   string // sha256 of a file's content; a link's target
	Device uint64
	Xattrs string // name=value, quoted, sorted; without what is the host's
	Group  string // for a file with several names in the tree: the first of them
}

// String returns the item on one line.
func (i Item) String() string {
	type plain Item // without this method
	return fmt.Sprintf("%q %+v", i.Type, plain(i))
}

// Snapshot describes everything in a directory, sorted by path, the directory itself not included. Change the items
// before comparing what should not count, such as nanoseconds.
func Snapshot(dir string) ([]Item, error) {
	var items []Item
	first := map[uint64]int{} // index of the first name of a file
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel := strings.TrimPrefix(path, strings.TrimSuffix(dir, "/")+"/")
		item, ino, err := describe(rel, path)
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		if ino != 0 {
			if i, ok := first[ino]; ok {
				items[i].Group, item.Group = items[i].Path, items[i].Path
			} else {
				first[ino] = len(items)
			}
		}
		items = append(items, item)
		return nil
	})
	return items, err
}

// describe returns a file's description and, when it has several names, its inode.
func describe(rel, path string) (item Item, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return item, 0, err
	}
	item = Item{
		Path: rel, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Sec: int64(st.Mtim.Sec), Nsec: int64(st.Mtim.Nsec),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		item.Type, item.Size = 'f', st.Size
		data, err := os.ReadFile(path)
		if err != nil {
			return item, 0, err
		}
		item.Data = fmt.Sprintf("%x", sha256.Sum256(data))
	case unix.S_IFDIR:
		item.Type = 'd'
	case unix.S_IFLNK:
		item.Type = 'l'
		if item.Data, err = os.Readlink(path); err != nil {
			return item, 0, err
		}
	case unix.S_IFCHR:
		item.Type, item.Device = 'c', uint64(st.Rdev)
	case unix.S_IFBLK:
		item.Type, item.Device = 'b', uint64(st.Rdev)
	case unix.S_IFIFO:
		item.Type = 'p'
	case unix.S_IFSOCK:
		item.Type = 's'
	}
	if item.Type != 'd' && st.Nlink > 1 {
		ino = st.Ino
	}
	item.Xattrs, err = xattrs(path)
	return item, ino, err
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP || n == 0 && err == nil {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var out []string
	for _, name := range names {
		if name == "security.selinux" || strings.HasPrefix(name, "trusted.SGI_ACL_") { // the host's
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", err
		}
		out = append(out, fmt.Sprintf("%s=%q", name, buf[:n]))
	}
	return strings.Join(out, " "), nil
}

// Diff compares two descriptions and returns one line for each difference, "-" what only a has and "+" what only b has.
func Diff(a, b []Item) []string {
	var out []string
	seen := map[Item]bool{}
	for _, i := range a {
		seen[i] = true
	}
	for _, i := range b {
		if !seen[i] {
			out = append(out, "+ "+i.String())
		}
		delete(seen, i)
	}
	for _, i := range a {
		if seen[i] {
			out = append(out, "- "+i.String())
		}
	}
	return out
}
