//go:build unix

package safeopen

import (
	"errors"
	"net"
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
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(err)
	defer l.Close()

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
		case <-time.After(5 * time.Second):
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
