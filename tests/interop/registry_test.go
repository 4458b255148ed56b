//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

// TestRegistrySchema1: an old image is pushed to a registry that still takes schema 1, and converted from there.
func TestRegistrySchema1(t *testing.T) {
	testenv.Need(t, "skopeo")
	addr, dir := lab.Registry(t), lab.TempDir(t)
	conf := filepath.Join(dir, ".config", "containers", "registries.conf")
	err := os.MkdirAll(filepath.Dir(conf), 0o755)
	if err == nil {
		err = os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	img := testimage.NewV1(testimage.V1Options{Seed: 31, Layers: 3, Empty: 2, Signed: true})
	if err := img.WriteDir(filepath.Join(dir, "src")); err != nil {
		t.Fatal(err)
	}
	remote := "docker://" + addr + "/library/old:1"
	skopeo(t, "copy", "-q", "-f", "v2s1", "--dest-tls-verify=false", "dir:"+filepath.Join(dir, "src"), remote)
	to := "oci:" + filepath.Join(dir, "layout") + ":t"
	got := convert(t, "--proof", "--verify-jws", remote, to)
	if !slices.Equal(got.DiffIDs, img.DiffIDs()) {
		t.Errorf("%+v", got)
	}
	if m, _ := config(t, to); !slices.Equal(m.RootFS.DiffIDs, img.DiffIDs()) || len(m.History) != 5 {
		t.Errorf("%+v", m)
	}
	// What comes from the registry is what comes from the directory.
	convert(t, "--format", "oci", "dir:"+filepath.Join(dir, "src"), "dir:"+filepath.Join(dir, "direct"))
	_, a := config(t, to)
	if _, b := config(t, "dir:"+filepath.Join(dir, "direct")); a != b {
		t.Errorf("from the registry\n%s\nfrom the directory\n%s", a, b)
	}
}

// inCell runs a command as user 65534 where there is nothing but kimg, what it reads, and one directory it may write to:
// no /tmp, no /proc, no /etc, no home.
const inCell = `set -e
mount --bind "$CELL" "$CELL"
mount --bind "$CELL/out" "$CELL/out"
mount -o remount,bind,ro "$CELL"
exec env -i unshare --root="$CELL" --wd=/ --setgid=65534 --setuid=65534 -- "$@"`

// TestReadOnlyRoot: conversions between directories need neither a store nor rights nor a place for temporary files.
func TestReadOnlyRoot(t *testing.T) {
	testenv.Root(t)
	testenv.Need(t, "unshare", "skopeo")
	cell := lab.TempDir(t)
	old := testimage.NewV1(testimage.V1Options{Seed: 41, Layers: 2, Empty: 1, Signed: true})
	img := testimage.NewImage(42, testimage.ImageOptions{Layers: 2, Gzip: true})
	if err := old.WriteDir(filepath.Join(cell, "old")); err != nil {
		t.Fatal(err)
	}
	if err := img.WriteOCI(filepath.Join(cell, "oci"), "t"); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(cell, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(out, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(lab.Kimg(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(cell, "kimg"), binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		argv := append([]string{"unshare", "--mount", "sh", "-c", inCell, "-", "/kimg", "convert"}, args...)
		lab.Must(t, []string{"CELL=" + cell}, argv...)
	}
	run("--proof", "oci:/oci:t", "dir:/out/dir")
	run("--proof", "dir:/old", "oci:/out/layout:t")
	run("dir:/out/dir", "docker-archive:/out/docker.tar:localhost/a:1", "dir:/old", "oci-archive:/out/oci.tar:t")
	for ref, want := range map[string]string{
		"dir:" + out + "/dir": img.Layers[1].DiffID, "oci:" + out + "/layout:t": old.Layers[1].DiffID,
		"docker-archive:" + out + "/docker.tar": img.Layers[1].DiffID, "oci-archive:" + out + "/oci.tar": old.Layers[1].DiffID,
	} {
		if m, _ := config(t, ref); len(m.RootFS.DiffIDs) != 2 || m.RootFS.DiffIDs[1] != want {
			t.Errorf("%s: %v", ref, m.RootFS.DiffIDs)
		}
	}
	names, err := os.ReadDir(out)
	if err != nil || len(names) != 4 {
		t.Errorf("%v in the directory, %v", names, err)
	}
}
