//go:build linux

package staging

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheDeadAreRemoved(t *testing.T) {
	dir := t.TempDir()
	alive, err := Open(dir, true)
	must(t, err)
	dead, err := Open(dir, true)
	must(t, err)
	_, _, err = dead.Put(t.Context(), "", -1, strings.NewReader("x"))
	must(t, err)
	dead.lock.Close() // as the kernel does for a process that dies
	canary := filepath.Join(dir, "canary")
	must(t, os.Mkdir(canary, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, prefix+"file"), nil, 0o600))
	must(t, os.Symlink(canary, filepath.Join(dir, prefix+"link")))
	third, err := Open(dir, false)
	must(t, err)
	if _, err := os.Stat(dead.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead one is left: %v", err)
	}
	for _, path := range []string{alive.dir, third.dir, canary, filepath.Join(dir, prefix+"file"), filepath.Join(dir, prefix+"link")} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("removed: %v", err)
		}
	}
	must(t, alive.Close())
	must(t, third.Close())
}

func TestPutTwice(t *testing.T) {
	a, err := Open(t.TempDir(), true)
	must(t, err)
	defer a.Close()
	for range 2 {
		d, n, err := a.Put(t.Context(), digest.FromString("x"), 1, strings.NewReader("x"))
		if err != nil || n != 1 || d != digest.FromString("x") {
			t.Errorf("%s, %d, %v", d, n, err)
		}
	}
	if entries, _ := os.ReadDir(a.dir); len(entries) != 1 {
		t.Errorf("staged: %v", entries)
	}
	for _, s := range []string{"2", "3", "4", "5", "6"} {
		_, _, err := a.Put(t.Context(), "", -1, strings.NewReader(s))
		must(t, err)
		must(t, a.Sync())
	}
}

func TestMakeDirs(t *testing.T) {
	top := t.TempDir()
	deep := filepath.Join(top, "a", "b", "c")
	made, err := MakeDirs(deep)
	if err != nil || len(made) != 3 || made[0] != filepath.Join(top, "a") {
		t.Errorf("%v, %v", made, err)
	}
	must(t, os.WriteFile(filepath.Join(top, "a", "b", "mine"), nil, 0o600))
	RemoveDirs(made)
	if _, err := os.Stat(filepath.Join(top, "a", "b", "mine")); err != nil {
		t.Errorf("something of somebody else went: %v", err)
	}
	if _, err := os.Stat(deep); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if _, err := MakeDirs(filepath.Join(top, "a", "b", "mine", "x")); kimg.ClassOf(err) != kimg.ErrExists && kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Errorf("below a file: %v", err)
	}
}

func TestTakeBackWithoutHardLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	must(t, os.WriteFile(path, []byte("old"), 0o640))
	must(t, duplicate(path, filepath.Join(dir, "y"), 0o640))
	if data, err := os.ReadFile(filepath.Join(dir, "y")); err != nil || string(data) != "old" {
		t.Errorf("%s, %v", data, err)
	}
}
