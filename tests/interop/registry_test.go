//go:build interop

package interop

import (
	"errors"
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

// inCell begins scripts in which cell runs kimg as user 65534 where there is nothing but kimg, what it reads, and one directory it may write to:
// no /tmp, no /proc, no /etc, no home.
const inCell = `set -e
mount --bind "$CELL" "$CELL"
mount --bind "$CELL/out" "$CELL/out"
mount -o remount,bind,ro "$CELL"
cell() { env -i unshare --root="$CELL" --wd=/ --setgid=65534 --setuid=65534 -- /kimg "$@"; }
`

// newCell makes what the commands see as /: kimg, and out, which they may write to.
func newCell(t *testing.T) (cell, out string) {
	t.Helper()
	testenv.Root(t)
	testenv.Need(t, "unshare")
	cell = lab.TempDir(t)
	out = filepath.Join(cell, "out")
	err := os.Mkdir(out, 0o755)
	if err == nil {
		err = os.Chown(out, 65534, 65534)
	}
	binary, rerr := os.ReadFile(lab.Kimg(t))
	if err = errors.Join(err, rerr, os.WriteFile(filepath.Join(cell, "kimg"), binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	return cell, out
}

// holds fails the test unless a directory has these entries and no other.
func holds(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s has %v, %v", dir, got, err)
	}
}

// Pains 7, 19: as a user without a name, a home, a temporary directory, subordinate ids and a network other than a registry's own, an image
// is fetched, looked at and sent.
func TestReadOnlyRootRegistry(t *testing.T) {
	testenv.Need(t, "docker-registry", "ip", "bash")
	cell, out := newCell(t)
	img := testimage.NewImage(43, testimage.ImageOptions{Layers: 2, Gzip: true})
	if err := img.WriteOCI(filepath.Join(cell, "oci"), "t"); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(lab.TempDir(t), "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: 127.0.0.1:5000}\n", filepath.Dir(conf))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = inCell + `ip link set lo up
docker-registry serve "$CONF" >/dev/null &
trap "kill $!; wait" EXIT
until (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null; do kill -0 $!; sleep .02; done
at=docker://127.0.0.1:5000/app:1
cell copy --quiet --tls-verify=false oci:/oci:t $at
cell copy --quiet --src-tls-verify=false $at oci:/out/layout:t
cell copy --quiet --compression zstd --src-tls-verify=false $at oci-archive:/out/app.tar:t
cell list-tags --tls-verify=false 127.0.0.1:5000/app
cell inspect --tls-verify=false --raw $at`
	got := lab.Must(t, []string{"CELL=" + cell, "CONF=" + conf}, "unshare", "--mount", "--net", "bash", "-c", script)
	if got != "1\n"+string(img.Manifest) {
		t.Errorf("%q", got)
	}
	holds(t, out, "app.tar", "layout")
	holds(t, cell, "kimg", "oci", "out")
	for _, ref := range []string{"oci:" + out + "/layout:t", "oci-archive:" + out + "/app.tar:t"} {
		if m, _ := config(t, ref); !slices.Equal(m.RootFS.DiffIDs, []string{img.Layers[0].DiffID, img.Layers[1].DiffID}) {
			t.Errorf("%s: %v", ref, m.RootFS.DiffIDs)
		}
	}
}

// TestReadOnlyRoot: conversions between directories need neither a store nor rights nor a place for temporary files.
func TestReadOnlyRoot(t *testing.T) {
	testenv.Need(t, "skopeo")
	cell, out := newCell(t)
	old := testimage.NewV1(testimage.V1Options{Seed: 41, Layers: 2, Empty: 1, Signed: true})
	img := testimage.NewImage(42, testimage.ImageOptions{Layers: 2, Gzip: true})
	if err := old.WriteDir(filepath.Join(cell, "old")); err != nil {
		t.Fatal(err)
	}
	if err := img.WriteOCI(filepath.Join(cell, "oci"), "t"); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		argv := append([]string{"unshare", "--mount", "sh", "-c", inCell + `cell "$@"`, "-", "convert"}, args...)
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
	holds(t, out, "dir", "docker.tar", "layout", "oci.tar")
}
