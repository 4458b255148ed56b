package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/archive"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

func TestTarSourceRefuses(t *testing.T) {
	ts := newStore(t)
	canary := filepath.Join(t.TempDir(), "canary")
	write(t, canary, "canary")
	good := makeTar(t, file{name: "f", content: strings.Repeat("content", 1000)})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(good)
	must(t, err)
	must(t, z.Close())
	img := ts.addImage(t, "kept", "kept")
	before := ts.inventory(t)
	for name, c := range map[string]struct {
		data []byte
		want kimg.Class
	}{
		"empty stream":      {nil, kimg.ErrIntegrity},
		"cut in a header":   {good[:300], kimg.ErrIntegrity},
		"cut in a file":     {good[:2000], kimg.ErrIntegrity},
		"cut gzip":          {zipped.Bytes()[:zipped.Len()-20], kimg.ErrIntegrity},
		"damaged gzip":      {append(bytes.Clone(zipped.Bytes()[:zipped.Len()-8]), 1, 2, 3, 4, 5, 6, 7, 8), kimg.ErrIntegrity},
		"not a tar":         {bytes.Repeat([]byte("no tar. "), 200), kimg.ErrInvalid},
		"long name":         {makeTar(t, file{name: strings.Repeat("a/", 2100) + "a"}), kimg.ErrLimit},
		"long link":         {makeTar(t, file{name: "l", kind: tar.TypeSymlink, link: strings.Repeat("a", 4097)}), kimg.ErrLimit},
		"overlay attribute": {makeTar(t, file{name: "f", pax: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}}), kimg.ErrUnsafe},
		"rootless one":      {makeTar(t, file{name: "f", pax: map[string]string{"SCHILY.xattr.user.overlay.opaque": "y"}}), kimg.ErrUnsafe},
		"escaping name":     {makeTar(t, file{name: "../../../../../../../../" + canary, content: "x"}), kimg.ErrInternal},
		"escaping link":     {makeTar(t, file{name: "l", kind: tar.TypeLink, link: "../../../../../../../.." + canary}), kimg.ErrInternal},
	} {
		_, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(c.data)))
		if c.want == kimg.ErrInternal { // must not get out; whether it fails is the library's choice
			if err == nil {
				layers, err := ts.Storage().Layers()
				must(t, err)
				for _, l := range layers {
					if l.ID != img.TopLayer {
						must(t, ts.Storage().DeleteLayer(l.ID))
					}
				}
			}
		} else if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if got := ts.inventory(t); got != before {
			t.Errorf("%s left behind:\n%s", name, diff(before, got))
		}
		_, err = store.TarSource(bytes.NewReader(c.data)).Stream(t.Context(), io.Discard)
		if c.want != kimg.ErrInternal && !errors.Is(err, c.want) {
			t.Errorf("%s, streamed: %v, want %s", name, err, c.want)
		}
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "canary" {
		t.Errorf("the canary: %q, %v", data, err)
	}
}

func TestTarSourceReadsEveryCompression(t *testing.T) {
	ts := newStore(t)
	// A tar with whiteouts, an opaque directory and padding at its end: it comes back byte for byte.
	plain := makeTar(t, file{name: "d/", kind: tar.TypeDir}, file{name: "d/.wh..wh..opq"}, file{name: ".wh.gone"}, file{name: "f", content: "content"})
	plain = append(plain, make([]byte, 4096)...)
	base, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "d/", kind: tar.TypeDir}, file{name: "d/old"}, file{name: "gone"}))))
	must(t, err)
	for _, program := range []string{"", "gzip", "zstd", "bzip2", "xz"} {
		data := plain
		if program != "" {
			testenv.Need(t, program)
			cmd := exec.Command(program, "-c")
			cmd.Stdin = bytes.NewReader(plain)
			data, err = cmd.Output()
			must(t, err)
		}
		l, err := ts.AddLayer(t.Context(), base.ID, store.TarSource(bytes.NewReader(data)))
		if err != nil || l.UncompressedDigest != digest.FromBytes(plain) {
			t.Errorf("%s: %+v, %v", program, l, err)
			continue
		}
		var out bytes.Buffer
		if err := ts.ExportLayer(t.Context(), l.ID, &out); err != nil || !bytes.Equal(out.Bytes(), plain) {
			t.Errorf("%s: export %v", program, err)
		}
		upper := filepath.Join(ts.root, "overlay", l.ID, "diff")
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(upper, "gone"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("%s: no whiteout: %v", program, err)
		}
		opaque := make([]byte, 1)
		if _, err := unix.Lgetxattr(filepath.Join(upper, "d"), archive.GetOverlayXattrName("opaque"), opaque); err != nil || opaque[0] != 'y' {
			t.Errorf("%s: not opaque: %v", program, err)
		}
		must(t, ts.Storage().DeleteLayer(l.ID))
	}
}

// TestOwnersOutsideTheNamespace unpacks what root can and an ordinary user cannot: his namespace has 65537 ids.
func TestOwnersOutsideTheNamespace(t *testing.T) {
	ts := newStore(t)
	before := ts.inventory(t)
	for name, f := range map[string]file{
		"owner":       {name: "f", uid: 70000},
		"access list": {name: "f", pax: map[string]string{"SCHILY.xattr.system.posix_acl_access": testimage.ACL(0o664, map[uint32]uint16{70000: 6}, nil)}},
		"capability":  {name: "f", pax: map[string]string{"SCHILY.xattr.security.capability": testimage.Capability(1<<10, 70000)}},
	} {
		l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(makeTar(t, f))))
		if testenv.IsRoot() {
			must(t, err)
			must(t, ts.Storage().DeleteLayer(l.ID))
			continue
		}
		if !errors.Is(err, kimg.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
		if got := ts.inventory(t); got != before {
			t.Errorf("%s: left behind:\n%s", name, diff(before, got))
		}
	}
}

func TestCutZstd(t *testing.T) {
	ts := newStore(t)
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	must(t, err)
	_, err = z.Write(makeTar(t, file{name: "f", content: "x"}))
	must(t, err)
	must(t, z.Close())
	data := b.Bytes()
	if _, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(data[:len(data)-3]))); !errors.Is(err, kimg.ErrIntegrity) {
		t.Errorf("%v", err)
	}
}

// TestRootModeIsTheDrivers: a tar's own entry for the root directory does not change the tree.
func TestRootModeIsTheDrivers(t *testing.T) {
	ts := newStore(t)
	l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "./", kind: tar.TypeDir, mode: 0o700}, file{name: "f"}))))
	must(t, err)
	other, err := ts.Storage().CreateLayer("", "", nil, "", false, nil)
	must(t, err)
	mode := func(id string) os.FileMode {
		info, err := os.Stat(filepath.Join(ts.root, "overlay", id, "diff"))
		must(t, err)
		return info.Mode()
	}
	if mode(l.ID) != mode(other.ID) {
		t.Errorf("mode %v, the library's %v", mode(l.ID), mode(other.ID))
	}
}

// TestLayerNobodyUses is about a layer that a crash or another tool left: it is reused when it is right and replaced
// when it is not.
func TestLayerNobodyUses(t *testing.T) {
	data := makeTar(t, file{name: "f", content: "content"}, file{name: "g", content: "more"})
	for name, damage := range map[string]func(diff string) error{
		"right":   nil,
		"emptied": func(diff string) error { return os.Truncate(filepath.Join(diff, "f"), 0) },
		"flipped": func(diff string) error { return os.WriteFile(filepath.Join(diff, "f"), []byte("CONTENT"), 0o755) },
		"a link": func(diff string) error {
			os.Remove(filepath.Join(diff, "f"))
			return os.Symlink("/etc/hostname", filepath.Join(diff, "f"))
		},
		"missing": func(diff string) error { return os.RemoveAll(filepath.Join(diff, "g")) },
		"no record": func(diff string) error {
			return os.Remove(strings.Replace(filepath.Dir(diff), "/overlay/", "/overlay-layers/", 1) + ".tar-split.gz")
		},
	} {
		t.Run(name, func(t *testing.T) {
			ts := newStore(t)
			add := func() *storage.Layer {
				l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(data)))
				must(t, err)
				return l
			}
			first := add()
			if damage != nil {
				must(t, damage(filepath.Join(ts.root, "overlay", first.ID, "diff")))
				must(t, addLayer(t.Context(), ts.Store, first.ID, "child")) // nobody uses that one either
			}
			if name == "no record" {
				return // the library makes the tar anew; whether it is the same is not certain
			}
			second := add()
			if replaced := !second.Created.Equal(first.Created); replaced != (damage != nil) {
				t.Errorf("replaced: %v", replaced)
			}
			if err := ts.ExportLayer(t.Context(), second.ID, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLayerInUseIsKept: an image stands on the layer, so it is not read again and never replaced.
func TestLayerInUseIsKept(t *testing.T) {
	ts := newStore(t)
	img := ts.addImage(t, "f", "f")
	before, err := ts.Storage().Layer(img.TopLayer)
	must(t, err)
	data := makeTar(t, file{name: "f", content: "content of f"})
	l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(data)))
	if err != nil || l.ID != img.TopLayer || !l.Created.Equal(before.Created) {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestExportFindsDamage(t *testing.T) {
	ts := newStore(t)
	img := ts.addImage(t, "f", "f")
	write(t, filepath.Join(ts.root, "overlay", img.TopLayer, "diff", "f"), "CONTENT of f")
	if err := ts.ExportLayer(t.Context(), img.TopLayer, io.Discard); !errors.Is(err, kimg.ErrIntegrity) || !strings.Contains(err.Error(), "f") {
		t.Errorf("%v", err)
	}
}

// TestExportStaysInside puts a link out of the layer where the record expects a file.
func TestExportStaysInside(t *testing.T) {
	ts := newStore(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "content of f")
	img := ts.addImage(t, "f", "f")
	path := filepath.Join(ts.root, "overlay", img.TopLayer, "diff", "f")
	must(t, os.Remove(path))
	must(t, os.Symlink(secret, path))
	var out bytes.Buffer
	if err := ts.ExportLayer(t.Context(), img.TopLayer, &out); err == nil || strings.Contains(out.String(), "content of f") {
		t.Errorf("%v, %q", err, out.String())
	}
}

// TestAdditionalStore uses images of a read-only store below.
func TestAdditionalStore(t *testing.T) {
	lower := &testStore{root: filepath.Join(fastTemp(t), "root")}
	if err, _ := lower.run(t, "import", ""); err != nil { // by another process: the library locks a store in one way per process
		t.Fatal(err)
	}
	unmountAll(t, filepath.Dir(lower.root))
	ts := newStore(t, "overlay.imagestore="+lower.root)
	ctx := t.Context()
	found, err := ts.Resolve(ctx, "base", nil)
	if err != nil || !found.ReadOnly {
		t.Fatalf("%+v, %v", found, err)
	}
	var out bytes.Buffer
	must(t, ts.ExportLayer(ctx, found.TopLayer, &out))
	c, err := ts.NewContainer(ctx, found, store.ContainerOptions{})
	must(t, err)
	stack, err := c.Stack(ctx, store.StackOptions{})
	if err != nil || len(stack.Lowers) != 3 || !strings.HasPrefix(stack.Lowers[0], lower.root) {
		t.Errorf("%+v, %v", stack, err)
	}
	must(t, addLayer(ctx, ts.Store, found.TopLayer, "above"))
	if _, err := ts.DeleteImage(ctx, "base", false); !errors.Is(err, kimg.ErrReadOnly) {
		t.Errorf("%v", err)
	}
	if _, err := ts.Tag(ctx, "base", "mine"); err != nil {
		t.Errorf("%v", err)
	}
}

// fillDiffer is the least a differ can do.
type fillDiffer struct{ tarSplit *os.File }

func (d fillDiffer) ApplyDiff(dest string, _ *archive.TarOptions, _ *drivers.DifferOptions) (drivers.DriverWithDifferOutput, error) {
	err := os.WriteFile(filepath.Join(dest, "file"), nil, 0o600)
	return drivers.DriverWithDifferOutput{TarSplit: d.tarSplit, UncompressedDigest: digest.FromString("x"), CompressedDigest: digest.FromString("x"), Size: 1, UIDs: []uint32{0}, GIDs: []uint32{0}}, err
}

func (fillDiffer) Close() error { return nil }

// TestStagedLayerContract pins what staged.go relies on in the library's experimental API.
func TestStagedLayerContract(t *testing.T) {
	ts := newStore(t)
	st := ts.Storage()
	stage := func() *drivers.DriverWithDifferOutput {
		f, err := os.CreateTemp(t.TempDir(), "")
		must(t, err)
		out, err := st.PrepareStagedLayer(&drivers.ApplyDiffWithDifferOpts{}, fillDiffer{f})
		must(t, err)
		return out
	}
	out := stage()
	if rel, err := filepath.Rel(filepath.Join(ts.root, "overlay", "staging"), out.Target); err != nil || filepath.Base(rel) != "dir" || !filepath.IsLocal(rel) {
		t.Fatalf("the staging directory is %s", out.Target)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(out.Target), "staging.lock")); err != nil {
		t.Errorf("the lock: %v", err)
	}
	saved := *out
	id := strings.Repeat("1", 64)
	l, err := st.ApplyStagedLayer(storage.ApplyStagedLayerOptions{ID: id, LayerOptions: &storage.LayerOptions{}, DiffOutput: out})
	must(t, err)
	if l.UncompressedDigest != saved.UncompressedDigest || l.UncompressedSize != 1 || len(l.UIDs) != 1 {
		t.Errorf("the record: %+v", l)
	}
	if _, err := os.Stat(filepath.Join(ts.root, "overlay-layers", id+".tar-split.gz")); err != nil {
		t.Errorf("the tar-split record: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(saved.Target)); err != nil {
		t.Errorf("the parent of the staging directory went with the layer: %v", err)
	}
	must(t, st.CleanupStagedLayer(&saved))
	if _, err := os.Stat(filepath.Dir(saved.Target)); !os.IsNotExist(err) {
		t.Errorf("cleanup left it: %v", err)
	}
	must(t, st.CleanupStagedLayer(&saved)) // twice is fine

	// A taken id is replaced without a word: that is why apply looks first, under the digest lock.
	write(t, filepath.Join(ts.root, "overlay", id, "diff", "live"), "x")
	again := stage()
	_, err = st.ApplyStagedLayer(storage.ApplyStagedLayerOptions{ID: id, LayerOptions: &storage.LayerOptions{}, DiffOutput: again})
	if _, lost := os.Stat(filepath.Join(ts.root, "overlay", id, "diff", "live")); err == nil && lost == nil {
		t.Log("the library keeps a live layer by now")
	}

	boom := errors.New("boom")
	failed, err := st.PrepareStagedLayer(&drivers.ApplyDiffWithDifferOpts{}, failDiffer{boom})
	if !errors.Is(err, boom) || failed == nil || failed.Target == "" {
		t.Fatalf("a differ's failure: %+v, %v", failed, err)
	}
	must(t, st.CleanupStagedLayer(failed))
	must(t, st.DeleteLayer(id))
}

type failDiffer struct{ err error }

func (d failDiffer) ApplyDiff(string, *archive.TarOptions, *drivers.DifferOptions) (drivers.DriverWithDifferOutput, error) {
	return drivers.DriverWithDifferOutput{}, d.err
}

func (failDiffer) Close() error { return nil }

// emptySource is a container that changed nothing.
type emptySource struct{}

func (emptySource) Stage(context.Context, string) (store.Staged, error) {
	return store.Staged{Empty: true}, nil
}
func (emptySource) Stream(context.Context, io.Writer) (bool, error) { return true, nil }

func TestEmptyLayerIsNotMade(t *testing.T) {
	ts := newStore(t)
	img := ts.addImage(t, "f", "f")
	before := ts.inventory(t)
	l, err := ts.AddLayer(t.Context(), img.TopLayer, emptySource{})
	if err != nil || l.ID != img.TopLayer {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := ts.AddLayer(t.Context(), "", emptySource{}); err != nil || l != nil {
		t.Errorf("%+v, %v", l, err)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
}

// TestOtherToolsReadTheImage lets podman and buildah work with what PutImage wrote.
func TestOtherToolsReadTheImage(t *testing.T) {
	testenv.Need(t, "podman", "buildah", "skopeo")
	ts := newStore(t)
	must(t, importImage(t.Context(), ts.Store, "other", "one", "two"))
	img, err := ts.Resolve(t.Context(), "other", nil)
	must(t, err)
	_, err = ts.NewContainer(t.Context(), img, store.ContainerOptions{Name: "ours"})
	must(t, err)
	tool := func(args ...string) string {
		t.Helper()
		args = append(args[:1:1], append([]string{"--root", ts.root, "--runroot", ts.runRoot, "--storage-driver", "overlay"}, args[1:]...)...)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if out := tool("podman", "image", "inspect", "--format", "{{.Id}} {{.Author}} {{len .RootFS.Layers}}", "localhost/other"); out != img.ID+" import 2" {
		t.Errorf("podman image inspect: %s", out)
	}
	if out := tool("podman", "ps", "--all", "--external", "--format", "{{.Names}} {{.Image}}"); !strings.Contains(out, "ours localhost/other:latest") {
		t.Errorf("podman ps: %s", out)
	}
	if out := tool("buildah", "containers", "--all", "--format", "{{.ContainerName}}"); !strings.Contains(out, "ours") {
		t.Errorf("buildah containers: %s", out)
	}
	name := tool("buildah", "from", "--pull-never", "localhost/other")
	root := tool("buildah", "mount", name)
	for _, f := range []string{"one", "two"} {
		if data, err := os.ReadFile(filepath.Join(root, f)); err != nil || string(data) != f {
			t.Errorf("%s: %q, %v", f, data, err)
		}
	}
	tool("buildah", "umount", name)
	c, err := ts.Container(t.Context(), name)
	if err != nil || c.Tool != store.ToolBuildah {
		t.Errorf("%+v, %v", c, err)
	}
	dir := t.TempDir()
	out, err := exec.Command("skopeo", "copy", "--insecure-policy", "containers-storage:[overlay@"+ts.root+"+"+ts.runRoot+"]localhost/other:latest", "dir:"+dir).CombinedOutput()
	if err != nil {
		t.Errorf("skopeo: %v: %s", err, out)
	}
	tool("buildah", "rm", name)
	tool("podman", "rmi", "--force", "localhost/other")
}
