//go:build linux

package atfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/testenv"
)

func open(t *testing.T, dir string) int {
	t.Helper()
	fd, err := atfs.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// Names come sorted by bytes, all of them, and again when asked again.
func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	const n = 3000 // more than one system call lists
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d-%s", (i*7)%n, strings.Repeat("x", i%200))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("x", filepath.Join(dir, "A")); err != nil {
		t.Fatal(err)
	}
	fd := open(t, dir)
	for range 2 {
		names, err := atfs.ReadDir(fd)
		if err != nil || len(names) != n+1 {
			t.Fatal(len(names), err)
		}
		for i, name := range names[:n] {
			if !strings.HasPrefix(name.Name, fmt.Sprintf("%04d-", i)) || name.Type != unix.DT_REG && name.Type != unix.DT_UNKNOWN {
				t.Fatalf("%d: %+v", i, name)
			}
		}
	}
}

// No call follows a link in the name it is given.
func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"file": "/etc/passwd", "dir": "/etc", "long": strings.Repeat("/x", 1000)} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	fd := open(t, dir)
	if f, err := atfs.OpenFile(fd, "file"); !atfs.Gone(err) {
		t.Error(f, err)
	}
	if f, err := atfs.OpenDir(fd, "dir"); !atfs.Gone(err) {
		t.Error(f, err)
	}
	if f, err := atfs.Create(fd, "file", 0o600); err != unix.EEXIST {
		t.Error(f, err)
	}
	if err := atfs.SetTimesAt(fd, "file", unix.Timespec{Sec: 7}); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := atfs.Lstat(fd, "file", &st); err != nil || st.Mtim.Sec != 7 {
		t.Error(st.Mtim, err)
	}
	if link, err := atfs.ReadLink(fd, "long"); err != nil || len(link) != 2000 {
		t.Error(len(link), err)
	}
}

// Attributes of every size the file system takes are read whole.
func TestXattrs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := []atfs.Xattr{{Name: "user.a", Value: ""}, {Name: "user.b", Value: strings.Repeat("\x00\xff", 1000)}}
	for i := range 40 {
		want = append(want, atfs.Xattr{Name: fmt.Sprintf("user.c%02d-%s", i, strings.Repeat("n", 15)), Value: "v"})
	}
	fd := open(t, dir)
	for _, x := range want {
		if err := atfs.SetXattrAt(fd, "f", x.Name, x.Value); err != nil {
			testenv.Skip(t, "the file system of %s: %v", dir, err)
		}
	}
	file, err := atfs.OpenFile(fd, "f")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	keep := func(name string) bool { return strings.HasPrefix(name, "user.") }
	byFile, err := atfs.Xattrs(file, keep)
	byName, err2 := atfs.XattrsAt(fd, "f", keep)
	if err != nil || err2 != nil || fmt.Sprint(byFile) != fmt.Sprint(want) || fmt.Sprint(byName) != fmt.Sprint(want) {
		t.Errorf("%v %v\n%.300q\n%.300q", err, err2, byFile, byName)
	}
}
