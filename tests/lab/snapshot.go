package lab

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Snapshot writes one line for each file below dir, sorted by path: type, mode, owner, size, modification time in
// seconds, device number, extended attributes, content, and the first path of its hard-link group. The root itself and
// sockets are left out: no layer holds them.
func Snapshot(w io.Writer, dir string) error {
	type inode struct{ dev, ino uint64 }
	first := map[inode]string{}
	out := bufio.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		name, _ := filepath.Rel(dir, path)
		kind := kinds[st.Mode&unix.S_IFMT]
		line := fmt.Sprintf("%q %s %04o %d:%d t%d", name, kind, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFSOCK:
			return nil
		case unix.S_IFBLK, unix.S_IFCHR:
			line += fmt.Sprintf(" %d,%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" -> %q", target)
		case unix.S_IFREG:
			sum, err := hash(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %s", st.Size, sum)
		}
		if kind != "dir" && st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino}
			if first[id] == "" {
				first[id] = name
			}
			line += fmt.Sprintf(" =%q", first[id])
		}
		attrs, err := xattrs(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		_, err = fmt.Fprintln(out, line+attrs)
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

var kinds = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "link", unix.S_IFIFO: "fifo",
	unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFSOCK: "socket",
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}

// xattrs renders the attributes that belong to the file and not to the machine or to overlayfs.
func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		if name == "" || name == "security.selinux" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " %s=%x", name, value[:n])
	}
	return b.String(), nil
}

// Compare returns up to 20 differences of two snapshots; empty when they are equal.
func Compare(want, got string) string {
	lines := func(s string) map[string]bool {
		m := map[string]bool{}
		for l := range strings.SplitSeq(s, "\n") {
			if l != "" {
				m[l] = true
			}
		}
		return m
	}
	w, g := lines(want), lines(got)
	var diff []string
	for l := range w {
		if !g[l] {
			diff = append(diff, l+"\n\t   (wanted)")
		}
	}
	for l := range g {
		if !w[l] {
			diff = append(diff, l+"\n\t   (got)")
		}
	}
	slices.Sort(diff)
	total := len(diff)
	if total > 20 {
		diff = append(diff[:20], fmt.Sprintf("and %d more", total-20))
	}
	return strings.Join(diff, "\n\t")
}
