//go:build unix

package safeopen

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

func TestOpenRefusesWhatIsNotARegularFile(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	regular := filepath.Join(dir, "file")
	must(os.WriteFile(regular, []byte("x"), 0o600))
	must(os.Symlink(regular, filepath.Join(dir, "link")))
	must(os.Symlink(filepath.Join(dir, "nothing"), filepath.Join(dir, "dangling")))
	must(os.Mkdir(filepath.Join(dir, "dir"), 0o700))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0)) // bound by nobody: the path may be longer than 107 bytes

	for _, path := range []string{"link", "dangling", "dir", "fifo", "socket", "/dev/zero"} {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		done := make(chan error, 1)
		go func() {
			f, err := Open(path)
			if err == nil {
				f.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if !errors.Is(err, kimg.ErrUnsafe) {
				t.Errorf("Open(%s) = %v, want class unsafe", path, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("Open(%s) blocks", path)
		}
	}
	f, err := Open(regular)
	must(err)
	f.Close()
	if _, err := Open(filepath.Join(dir, "nothing")); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Errorf("Open of nothing = %v, want class notfound", err)
	}
}

// TestRefusedIsNotTouched: whoever waits for somebody to read from a FIFO waits on.
func TestRefusedIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	woken := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		woken <- errors.Join(err, f.Close())
	}()
	time.Sleep(100 * time.Millisecond)
	for name, open := range map[string]func() (*os.File, error){
		"Open": func() (*os.File, error) { return Open(path) }, "OpenIn": func() (*os.File, error) { return OpenIn(root, "fifo") },
	} {
		if _, err := open(); !errors.Is(err, kimg.ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-woken:
			t.Fatalf("%s: was opened", name)
		case <-time.After(50 * time.Millisecond):
		}
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err = errors.Join(err, <-woken); err != nil {
		t.Fatal(err)
	}
	reader.Close()
}

func TestReadFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFile(path, 100); err != nil || len(data) != 100 {
		t.Errorf("at the limit: %d bytes, %v", len(data), err)
	}
	if _, err := ReadFile(path, 99); !errors.Is(err, kimg.ErrLimit) {
		t.Errorf("above the limit: %v, want class limit", err)
	}
}

func TestWriteFileAtomicReplacesALinkInsteadOfFollowingIt(t *testing.T) {
	dir := t.TempDir()
	canary, path := filepath.Join(dir, "canary"), filepath.Join(dir, "file")
	if err := os.WriteFile(canary, []byte("canary"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(canary, path); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(canary); string(data) != "canary" {
		t.Errorf("the link was followed: %q", data)
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
		t.Errorf("the result is %v, %v", info, err)
	}
}

func TestWriteFileAtomicLeavesNothingWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o700); err != nil { // a rename onto a full directory fails
		t.Fatal(err)
	}
	if err := WriteFileAtomic(path, []byte("new"), 0o600); err == nil {
		t.Fatal("a directory was replaced by a file")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestOpenInStaysInside(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700),
		os.WriteFile(filepath.Join(dir, "a", "b", "file"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(top, "outside"), []byte("x"), 0o600),
		os.Symlink("../outside", filepath.Join(dir, "up")),
		os.Symlink("a", filepath.Join(dir, "in")),
		unix.Mkfifo(filepath.Join(dir, "a", "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if data, err := ReadIn(root, "a/b/file", 1); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	for path, want := range map[string]kimg.Class{
		"up": kimg.ErrUnsafe, "in/b/file": kimg.ErrUnsafe, "../outside": kimg.ErrUnsafe, "/etc/passwd": kimg.ErrUnsafe, "a/../../outside": kimg.ErrUnsafe,
		"": kimg.ErrUnsafe, ".": kimg.ErrUnsafe, "a": kimg.ErrUnsafe, "a/fifo": kimg.ErrUnsafe, "a/b/file/x": kimg.ErrUnsafe, "a/x": kimg.ErrNotFound, "a//b/file": kimg.ErrUnsafe,
	} {
		if f, err := OpenIn(root, path); kimg.ClassOf(err) != want {
			t.Errorf("OpenIn(%q) = %v, %v, want class %s", path, f, err, want)
		}
	}
}

func TestNameless(t *testing.T) {
	dir := t.TempDir()
	f, err := Nameless(dir, "x-")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
	if _, err := f.WriteString("still a file"); err != nil {
		t.Error(err)
	}
	if _, err := Nameless(dir+"/absent", "x-"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
