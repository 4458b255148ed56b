package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store/layout"
)

// forms are the kinds of archive, for tests that hold for both.
var forms = map[string]struct {
	create func(ctx context.Context, path string, o Options) (*Destination, error)
	open   func(ctx context.Context, path string) (*Source, error)
}{
	"oci": {
		func(ctx context.Context, path string, o Options) (*Destination, error) {
			d, err := CreateOCI(ctx, path, "tag", o)
			return d.Destination, err
		},
		func(ctx context.Context, path string) (*Source, error) { return OpenOCI(ctx, path, "tag", Options{}) },
	},
	"docker": {
		func(ctx context.Context, path string, o Options) (*Destination, error) {
			return CreateDocker(ctx, path, []string{"example.org/a:b", "busybox", "docker.io/library/busybox:latest"}, o)
		},
		func(ctx context.Context, path string) (*Source, error) {
			return OpenDocker(ctx, path, "example.org/a:b", Options{})
		},
	},
}

func put(ctx context.Context, d *Destination, img testimage.Image) error {
	blobs := [][]byte{img.Config}
	for _, l := range img.Layers {
		blobs = append(blobs, l.Blob)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(blobs))
	for i := range blobs { // in whatever order they come
		wg.Go(func() { _, _, errs[i] = d.Put(ctx, "", -1, bytes.NewReader(blobs[i])) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func write(ctx context.Context, d *Destination, img testimage.Image) error {
	if err := put(ctx, d, img); err != nil {
		return err
	}
	return d.Commit(ctx, img.Manifest, img.ManifestType)
}

func TestRoundTrip(t *testing.T) {
	img := testimage.NewImage(1, testimage.ImageOptions{Layers: 5, Docker: true})
	for name, f := range forms {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var first []byte
			for i := range 4 {
				path := filepath.Join(dir, fmt.Sprint(i))
				if i == 1 { // as mktemp makes it
					must(t, os.WriteFile(path, nil, 0o600))
				}
				d, err := f.create(t.Context(), path, Options{NoSync: i > 1})
				must(t, err)
				must(t, write(t.Context(), d, img))
				must(t, d.Close())
				s, err := f.open(t.Context(), path)
				must(t, err)
				check(t, s, img)
				must(t, s.Close())
				data, err := os.ReadFile(path)
				must(t, err)
				if first != nil && !bytes.Equal(first, data) {
					t.Error("other bytes for the same image")
				}
				first = data
			}
			if items := snapshot(t, dir); len(items) != 4 {
				t.Errorf("left: %v", items)
			}
		})
	}
}

// TestOldReaders reads a docker-archive as Docker before 1.10 would: without manifest.json.
func TestOldReaders(t *testing.T) {
	img := testimage.NewImage(2, testimage.ImageOptions{Layers: 3, Docker: true})
	path := filepath.Join(t.TempDir(), "x.tar")
	d, err := forms["docker"].create(t.Context(), path, Options{})
	must(t, err)
	must(t, write(t.Context(), d, img))
	must(t, d.Close())
	s, err := open(t.Context(), path, Options{}, func(s *Source) error { return s.openLegacy(t.Context(), "busybox") })
	must(t, err)
	defer s.Close()
	raw, _ := s.Manifest(t.Context())
	var m struct {
		Architecture string
		FSLayers     []struct{ BlobSum string }
		History      []struct{ V1Compatibility string }
	}
	must(t, json.Unmarshal(raw, &m))
	if len(m.FSLayers) != 3 || m.Architecture != "amd64" || !strings.Contains(m.History[0].V1Compatibility, "SEED=2") {
		t.Errorf("%s", raw)
	}
	for i, l := range img.Layers {
		if m.FSLayers[2-i].BlobSum != l.DiffID {
			t.Errorf("layer %d is %s", i, m.FSLayers[2-i].BlobSum)
		}
	}
}

func TestRepeatedLayer(t *testing.T) {
	img := testimage.NewImage(3, testimage.ImageOptions{Docker: true})
	l := img.Layers[0]
	config := strings.Replace(string(img.Config), `"`+l.DiffID+`"`, `"`+l.DiffID+`","`+l.DiffID+`"`, 1)
	var m map[string]any
	must(t, json.Unmarshal(img.Manifest, &m))
	m["config"].(map[string]any)["digest"], m["config"].(map[string]any)["size"] = testimage.Digest([]byte(config)), len(config)
	m["layers"] = []any{m["layers"].([]any)[0], m["layers"].([]any)[0]}
	img.Config = []byte(config)
	img.Manifest, _ = json.Marshal(m)
	path := filepath.Join(t.TempDir(), "x.tar")
	d, err := forms["docker"].create(t.Context(), path, Options{})
	must(t, err)
	must(t, write(t.Context(), d, img))
	must(t, d.Close())
	s, err := forms["docker"].open(t.Context(), path)
	must(t, err)
	check(t, s, img)
	must(t, s.Close())
	s, err = open(t.Context(), path, Options{}, func(s *Source) error { return s.openLegacy(t.Context(), "busybox") })
	must(t, err)
	must(t, s.Close())
}

func TestRefusedImages(t *testing.T) {
	docker := testimage.NewImage(4, testimage.ImageOptions{Docker: true})
	other := testimage.NewImage(5, testimage.ImageOptions{Docker: true})
	for name, c := range map[string]struct {
		form     string
		img      testimage.Image
		manifest []byte
		class    kimg.Class
	}{
		"docker, an OCI image":    {"docker", testimage.NewImage(4, testimage.ImageOptions{}), nil, kimg.ErrUnsupported},
		"docker, a gzip layer":    {"docker", testimage.NewImage(4, testimage.ImageOptions{Docker: true, Gzip: true}), nil, kimg.ErrInvalid},
		"docker, a missing blob":  {"docker", docker, other.Manifest, kimg.ErrNotFound},
		"docker, no manifest":     {"docker", docker, []byte("{}"), kimg.ErrInvalid},
		"docker, large manifest":  {"docker", docker, bytes.Repeat([]byte(" "), 4<<20+1), kimg.ErrLimit},
		"oci, large manifest":     {"oci", docker, bytes.Repeat([]byte(" "), 4<<20+1), kimg.ErrLimit},
		"docker, another index":   {"docker", docker, []byte(`{"schemaVersion":2,"manifests":[]}`), kimg.ErrUnsupported},
		"docker, schema 1":        {"docker", docker, []byte(`{"schemaVersion":1,"fsLayers":[],"history":[]}`), kimg.ErrUnsupported},
		"docker, config no image": {"docker", docker, bytes.Replace(docker.Manifest, []byte(testimage.Digest(docker.Config)), []byte(docker.Layers[0].Digest), 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := forms[c.form].create(t.Context(), filepath.Join(dir, "x"), Options{})
			must(t, err)
			must(t, put(t.Context(), d, c.img))
			m := c.img.Manifest
			if c.manifest != nil {
				m = c.manifest
			}
			if err := d.Commit(t.Context(), m, c.img.ManifestType); err == nil || c.class != "" && kimg.ClassOf(err) != c.class {
				t.Errorf("%v, want class %s", err, c.class)
			}
			must(t, d.Close())
			same(t, nil, dir)
		})
	}
	d, err := forms["oci"].create(t.Context(), filepath.Join(t.TempDir(), "x"), Options{})
	must(t, err)
	if err := d.Commit(t.Context(), []byte("{}"), "text/plain"); !errors.Is(err, kimg.ErrUnsupported) {
		t.Errorf("another media type: %v", err)
	}
	must(t, d.Close())
}

func TestRefusedDestinations(t *testing.T) {
	for name, prepare := range map[string]func(string) error{
		"a file":      func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"a link":      func(p string) error { return os.Symlink("nothing", p) },
		"a FIFO":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		must(t, prepare(path))
		before := snapshot(t, dir)
		for form, f := range forms {
			if err := within(t, func() error { _, err := f.create(t.Context(), path, Options{}); return err }); !errors.Is(err, kimg.ErrExists) {
				t.Errorf("%s, %s: %v", name, form, err)
			}
		}
		same(t, before, dir)
	}
	for _, f := range forms {
		if _, err := f.create(t.Context(), filepath.Join(t.TempDir(), "absent", "x"), Options{}); kimg.ClassOf(err) != kimg.ErrNotFound {
			t.Errorf("%v", err)
		}
	}
	for _, name := range []string{"UPPER", "a@sha256:" + strings.Repeat("0", 64), "a:b:c", "", strings.Repeat("x", 256), "@0"} {
		if _, err := CreateDocker(t.Context(), filepath.Join(t.TempDir(), "x"), []string{name}, Options{}); err == nil {
			t.Errorf("the name %q", name)
		}
	}
}

func TestFailureAndCancelLeaveNothing(t *testing.T) {
	img := testimage.NewImage(6, testimage.ImageOptions{Docker: true})
	for _, f := range forms {
		dir := t.TempDir()
		for n := 0; n < 2; n++ {
			d, err := f.create(t.Context(), filepath.Join(dir, "x"), Options{})
			must(t, err)
			left := n
			d.step = func() error {
				if left--; left < 0 {
					return syscall.EIO
				}
				return nil
			}
			if err := write(t.Context(), d, img); kimg.ClassOf(err) != kimg.ErrIO {
				t.Errorf("step %d: %v", n, err)
			}
			must(t, d.Close())
			same(t, nil, dir)
		}
		ctx, cancel := context.WithCancel(t.Context())
		d, err := f.create(ctx, filepath.Join(dir, "x"), Options{})
		must(t, err)
		must(t, put(ctx, d, img))
		cancel()
		if err := d.Commit(ctx, img.Manifest, img.ManifestType); kimg.ClassOf(err) != kimg.ErrInterrupted {
			t.Errorf("cancelled: %v", err)
		}
		must(t, d.Close())
		same(t, nil, dir)
		must(t, d.Close()) // again
	}
}

// TestFullDisk writes 16 MiB to a disk of 4.
func TestFullDisk(t *testing.T) {
	testenv.Root(t)
	disk := t.TempDir()
	must(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"))
	defer syscall.Unmount(disk, syscall.MNT_DETACH)
	small := testimage.NewImage(6, testimage.ImageOptions{Docker: true})
	for name, create := range map[string]func() (destination, error){
		"oci": func() (destination, error) {
			return layout.CreateOCI(t.Context(), filepath.Join(disk, "a/b"), "", layout.Options{})
		},
		"dir": func() (destination, error) {
			return layout.CreateDir(t.Context(), filepath.Join(disk, "a/b"), layout.Options{})
		},
		"archive": func() (destination, error) {
			return forms["docker"].create(t.Context(), filepath.Join(disk, "x"), Options{})
		},
	} {
		d, err := create()
		must(t, err)
		if _, _, err := d.Put(t.Context(), "", -1, io.LimitReader(rand.NewChaCha8([32]byte{}), 16<<20)); kimg.ClassOf(err) != kimg.ErrNoSpace {
			t.Errorf("%s: %v", name, err)
		}
		_, _, err = d.Put(t.Context(), "", -1, bytes.NewReader(small.Config)) // there is room again
		must(t, err)
		must(t, d.Close())
		same(t, nil, disk)
	}
	// Room for the blobs, but not for the archive made of them.
	d, err := forms["oci"].create(t.Context(), filepath.Join(disk, "x"), Options{})
	must(t, err)
	_, _, err = d.Put(t.Context(), "", -1, io.LimitReader(rand.NewChaCha8([32]byte{}), 3<<20))
	must(t, err)
	if err := d.Commit(t.Context(), small.Manifest, small.ManifestType); kimg.ClassOf(err) != kimg.ErrNoSpace {
		t.Errorf("commit: %v", err)
	}
	must(t, d.Close())
	same(t, nil, disk)
}

type destination = interface {
	Put(context.Context, digest.Digest, int64, io.Reader) (digest.Digest, int64, error)
	Commit(context.Context, []byte, string) error
	Close() error
}

const killEnv = "KIMG_TEST_KILL"

// TestKilled leaves one hidden directory, which the next writer beside it removes.
func TestKilled(t *testing.T) {
	img := testimage.NewImage(7, testimage.ImageOptions{Docker: true})
	if path := os.Getenv(killEnv); path != "" {
		d, err := forms["docker"].create(t.Context(), path, Options{})
		must(t, err)
		d.step = func() error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) }
		must(t, write(t.Context(), d, img))
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killEnv+"="+path)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Fatalf("not killed: %s", out)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 || !strings.HasPrefix(all[0].Name(), ".") {
		t.Errorf("left: %v", all)
	}
	alive, err := forms["oci"].create(t.Context(), filepath.Join(dir, "other"), Options{})
	must(t, err)
	d, err := forms["docker"].create(t.Context(), path, Options{})
	must(t, err)
	must(t, write(t.Context(), d, img))
	must(t, d.Close())
	must(t, write(t.Context(), alive, img)) // was not taken for dead
	must(t, alive.Close())
	if all, _ := os.ReadDir(dir); len(all) != 2 {
		t.Errorf("left: %v", all)
	}
}

func TestIndexInArchive(t *testing.T) {
	img := testimage.NewImage(8, testimage.ImageOptions{})
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	path := filepath.Join(t.TempDir(), "x")
	d, err := CreateOCI(t.Context(), path, "", Options{})
	must(t, err)
	must(t, put(t.Context(), d.Destination, img))
	must(t, d.PutManifest(t.Context(), digest.FromBytes(img.Manifest), img.Manifest))
	if ok, err := d.Has(t.Context(), digest.FromBytes(img.Config), int64(len(img.Config))); !ok || err != nil {
		t.Errorf("has not what was put: %v", err)
	}
	r, size, err := d.Blob(t.Context(), digest.FromBytes(img.Config))
	if err != nil || size != int64(len(img.Config)) {
		t.Errorf("a staged blob: %d, %v", size, err)
	}
	r.Close()
	if _, _, err := d.Blob(t.Context(), "../x"); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Errorf("a blob that was not put: %v", err)
	}
	must(t, d.Commit(t.Context(), index, "application/vnd.oci.image.index.v1+json"))
	must(t, d.Close())
	s, err := OpenOCI(t.Context(), path, "", Options{})
	must(t, err)
	defer s.Close()
	if m, err := s.ManifestByDigest(t.Context(), digest.FromBytes(img.Manifest)); err != nil || !bytes.Equal(m, img.Manifest) {
		t.Error(err)
	}
}

// TestPeers holds both directions against the tools everybody uses.
func TestPeers(t *testing.T) {
	testenv.Need(t, "skopeo", "tar")
	img := testimage.NewImage(9, testimage.ImageOptions{Layers: 2, Docker: true})
	oci := testimage.NewImage(9, testimage.ImageOptions{Layers: 2, Gzip: true})
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for form, one := range map[string]testimage.Image{"docker": img, "oci": oci} {
		d, err := forms[form].create(t.Context(), at(form), Options{})
		must(t, err)
		must(t, write(t.Context(), d, one))
		must(t, d.Close())
	}
	for ref, want := range map[string][]byte{
		"docker-archive:" + at("docker"):                    img.Manifest,
		"docker-archive:" + at("docker") + ":busybox":       nil,
		"docker-archive:" + at("docker") + ":@0":            nil,
		"oci-archive:" + at("oci") + ":tag":                 oci.Manifest,
		"oci-archive:" + at("oci"):                          nil,
		"docker-archive:" + at("docker") + ":no:such:thing": []byte("fails"),
	} {
		out := filepath.Join(t.TempDir(), "out")
		cmd := exec.Command("skopeo", "--insecure-policy", "copy", "--preserve-digests", ref, "dir:"+out)
		text, err := cmd.CombinedOutput()
		if string(want) == "fails" {
			if err == nil {
				t.Errorf("%s was read", ref)
			}
			continue
		}
		got, _ := os.ReadFile(filepath.Join(out, "manifest.json"))
		if strings.HasPrefix(ref, "docker") {
			got = relabel(got)
		}
		var a, b any
		if err != nil || want != nil && (json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b)) {
			t.Errorf("%s: %v\n%s", ref, err, text)
		}
	}

	in := at("in")
	must(t, img.WriteDir(in))
	skopeo := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("skopeo", append([]string{"--insecure-policy", "copy"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	skopeo("dir:"+in, "docker-archive:"+at("theirs")+":busybox:x", "--additional-tag", "example.org/y:z")
	skopeo("dir:"+in, "oci-archive:"+at("theiroci")+":name")
	skopeo("docker-archive:"+at("theirs"), "dir:"+at("reread"))
	theirs, err := os.ReadFile(at("reread/manifest.json"))
	must(t, err)
	for _, ref := range []string{"", "busybox:x", "example.org/y:z"} {
		s, err := OpenDocker(t.Context(), at("theirs"), ref, Options{})
		must(t, err)
		check(t, s, img)
		if m, _ := s.Manifest(t.Context()); !bytes.Equal(m, relabel(theirs)) {
			t.Errorf("%s, skopeo makes %s", m, theirs)
		}
		must(t, s.Close())
	}
	s, err := OpenOCI(t.Context(), at("theiroci"), "name", Options{})
	must(t, err)
	if _, err := s.Manifest(t.Context()); err != nil {
		t.Error(err)
	}
	must(t, s.Close())
}

// relabel corrects what skopeo says about the layers of a docker-archive: it calls plain ones gzip.
func relabel(manifest []byte) []byte {
	return bytes.ReplaceAll(manifest, []byte("diff.tar.gzip"), []byte("diff.tar"))
}

// TestPodman reads what podman save writes, in all its formats, and has podman load what we write.
func TestPodman(t *testing.T) {
	testenv.Need(t, "podman", "skopeo")
	testenv.Root(t)
	dir := t.TempDir()
	run, err := os.MkdirTemp("/tmp", "kimg-") // podman takes no run root of more than 50 characters
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(run)) })
	podman := func(args ...string) string {
		t.Helper()
		all := append([]string{"--root", filepath.Join(dir, "root"), "--runroot", run, "--storage-driver", "vfs"}, args...)
		out, err := exec.Command("podman", all...).CombinedOutput()
		if err != nil {
			t.Fatalf("podman %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	img := testimage.NewImage(10, testimage.ImageOptions{Layers: 2, Docker: true})
	other := testimage.NewImage(11, testimage.ImageOptions{Docker: true})
	for i, one := range []testimage.Image{img, other} {
		path := filepath.Join(dir, fmt.Sprint("ours", i))
		d, err := CreateDocker(t.Context(), path, []string{fmt.Sprintf("localhost/x%d:1", i)}, Options{})
		must(t, err)
		must(t, write(t.Context(), d, one))
		must(t, d.Close())
		podman("load", "-q", "-i", path)
	}
	podman("save", "-q", "-o", filepath.Join(dir, "docker"), "localhost/x0:1")
	podman("save", "-q", "-m", "-o", filepath.Join(dir, "multi"), "localhost/x0:1", "localhost/x1:1")
	podman("save", "-q", "--format", "oci-archive", "-o", filepath.Join(dir, "oci"), "localhost/x0:1")
	for file, ref := range map[string]string{"docker": "", "multi": "localhost/x0:1"} {
		s, err := OpenDocker(t.Context(), filepath.Join(dir, file), ref, Options{})
		must(t, err)
		check(t, s, img)
		must(t, s.Close())
	}
	if _, err := OpenDocker(t.Context(), filepath.Join(dir, "multi"), "", Options{}); kimg.ClassOf(err) != kimg.ErrInvalid || !strings.Contains(err.Error(), "localhost/x1:1") {
		t.Errorf("several images: %v", err)
	}
	s, err := OpenOCI(t.Context(), filepath.Join(dir, "oci"), "", Options{})
	must(t, err)
	must(t, s.Close())
	podman("save", "-q", "--format", "oci-dir", "-o", filepath.Join(dir, "ocidir"), "localhost/x0:1")
	podman("save", "-q", "--format", "docker-dir", "-o", filepath.Join(dir, "dockerdir"), "localhost/x0:1")
	o, err := layout.OpenOCI(filepath.Join(dir, "ocidir"), "")
	must(t, err)
	must(t, o.Close())
	d, err := layout.OpenDir(filepath.Join(dir, "dockerdir"))
	must(t, err)
	r, _, err := d.Blob(t.Context(), digest.FromBytes(img.Config))
	must(t, err)
	must(t, r.Close())
	must(t, d.Close())
	podman("rmi", "-a", "-f")
}

func TestMemberOrder(t *testing.T) {
	img := testimage.NewImage(12, testimage.ImageOptions{Layers: 4})
	path := filepath.Join(t.TempDir(), "x")
	d, err := forms["oci"].create(t.Context(), path, Options{})
	must(t, err)
	must(t, write(t.Context(), d, img))
	must(t, d.Close())
	out, err := exec.Command("tar", "-tf", path).Output()
	must(t, err)
	names := strings.Fields(string(out))
	if !slices.Equal(names[:4], []string{"oci-layout", "index.json", "blobs/", "blobs/sha256/"}) || !slices.IsSorted(names[4:]) || len(names) != 10 {
		t.Errorf("%v", names)
	}
}
