package lab

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
)

// EnvBase names a tar of a Debian root file system that was made before (by CI, for all users).
const EnvBase = "KIMG_TEST_BASE"

// Debian returns a tar of a Debian root file system, made by mmdebstrap from the machine's package mirror. It is kept
// from run to run in the temporary directory.
func Debian(t testing.TB) string {
	t.Helper()
	if tar := os.Getenv(EnvBase); tar != "" {
		return tar
	}
	testenv.Need(t, "mmdebstrap")
	dir := filepath.Join(os.TempDir(), "kimg-test-base-"+strconv.Itoa(os.Geteuid()))
	tar := filepath.Join(dir, "bookworm.tar")
	if _, err := os.Stat(tar); err == nil {
		return tar
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "part.tar")
	Must(t, nil, "mmdebstrap", "--variant=minbase", "bookworm", part)
	if err := os.Rename(part, tar); err != nil {
		t.Fatal(err)
	}
	return tar
}

// SmallBase writes a small tree to build images from when no Debian is needed.
func SmallBase(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(TempDir(t), "base")
	c := &changer{root: dir}
	for _, f := range []string{"etc/a", "etc/b", "etc/c", "etc/issue", "opt/tree/x/1", "opt/tree/y/2", "usr/bin/tool", "usr/share/doc/bash/copyright", "var/lib/moving/deep/file"} {
		c.file(f, "base "+f+"\n", 0o644)
	}
	for _, d := range []string{"etc", "opt/tree/x", "opt/tree/y", "opt/tree", "opt", "usr/bin", "usr/share/doc/bash", "usr/share/doc", "usr/share", "usr", "srv", "var/lib/moving/deep", "var/lib/moving", "var/lib", "var"} {
		c.dir(d, 0o755)
	}
	if c.err == nil {
		c.err = c.settle()
	}
	if c.err != nil {
		t.Fatal(c.err)
	}
	return dir
}
