package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

// Forms of a destination, for tests that hold for both.
var forms = map[string]struct {
	create func(ctx context.Context, path string) (*Destination, error)
	open   func(path string) (readable, error)
	write  func(img testimage.Image, path string) error
}{
	"oci": {
		func(ctx context.Context, path string) (*Destination, error) {
			return CreateOCI(ctx, path, "tag", Options{})
		},
		func(path string) (readable, error) { return OpenOCI(path, "tag") },
		func(img testimage.Image, path string) error { return img.WriteOCI(path, "tag") },
	},
	"dir": {
		func(ctx context.Context, path string) (*Destination, error) { return CreateDir(ctx, path, Options{}) },
		func(path string) (readable, error) { return OpenDir(path) },
		func(img testimage.Image, path string) error { return img.WriteDir(path) },
	},
}

type readable interface {
	Manifest(context.Context) ([]byte, error)
	Blob(context.Context, digest.Digest) (io.ReadCloser, int64, error)
	Close() error
}

func put(ctx context.Context, d *Destination, img testimage.Image) error {
	for _, l := range img.Layers {
		if _, _, err := d.Put(ctx, digest.Digest(l.Digest), int64(len(l.Blob)), bytes.NewReader(l.Blob)); err != nil {
			return err
		}
	}
	got, n, err := d.Put(ctx, "", -1, bytes.NewReader(img.Config))
	if err == nil && (got != digest.FromBytes(img.Config) || n != int64(len(img.Config))) {
		err = fmt.Errorf("learnt %s, %d", got, n)
	}
	return err
}

func write(ctx context.Context, d *Destination, img testimage.Image) error {
	if err := put(ctx, d, img); err != nil {
		return err
	}
	return d.Commit(ctx, img.Manifest, img.ManifestType)
}

func check(t *testing.T, s readable, img testimage.Image) {
	t.Helper()
	if m, err := s.Manifest(t.Context()); err != nil || !bytes.Equal(m, img.Manifest) {
		t.Errorf("another manifest, %v", err)
	}
	for _, l := range img.Layers {
		readBlob(t, s, l.Digest, l.Blob)
	}
	readBlob(t, s, testimage.Digest(img.Config), img.Config)
	must(t, s.Close())
}

func TestRoundTrip(t *testing.T) {
	one, two := testimage.NewImage(1, testimage.ImageOptions{Layers: 6}), testimage.NewImage(2, testimage.ImageOptions{})
	for name, f := range forms {
		for _, place := range []string{"empty", "absent/below/absent"} {
			t.Run(name+"/"+place, func(t *testing.T) {
				top := t.TempDir()
				path := filepath.Join(top, place)
				if place == "empty" {
					must(t, os.Mkdir(path, 0o755))
				}
				for _, img := range []testimage.Image{one, two, one} { // each replaces the one before
					d, err := f.create(t.Context(), path)
					must(t, err)
					must(t, write(t.Context(), d, img))
					must(t, d.Close())
					s, err := f.open(path)
					must(t, err)
					check(t, s, img)
				}
				noStaging(t, top)
				if name == "dir" { // nothing of the image before is left
					want := filepath.Join(top, "want")
					must(t, one.WriteDir(want))
					if a, b := list(t, want), list(t, path); !slices.Equal(a, b) {
						t.Errorf("%v, want %v", b, a)
					}
				}
			})
		}
	}
}

func TestIndexKeepsWhatItDoesNotKnow(t *testing.T) {
	const old = `{ "x-first": {"a":[1, 2]},
 "schemaVersion":2, "manifests" : [ {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aa","size":7,  "x":1,"annotations":{"org.opencontainers.image.ref.name":"other"}},
 {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:bb","size":7,"annotations":{"org.opencontainers.image.ref.name":"tag"}},
 {"digest":"sha256:cc"},{"digest":"sha256:bb","annotations":{"org.opencontainers.image.ref.name":"tag"}} ], "annotations":{"k":"<v>"} }`
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "index.json"), []byte(old), 0o644))
	img := testimage.NewImage(1, testimage.ImageOptions{})
	for _, name := range []string{"tag", "tag", "new", "", ""} {
		d, err := CreateOCI(t.Context(), dir, name, Options{NoSync: true})
		must(t, err)
		must(t, write(t.Context(), d, img))
		must(t, d.Close())
	}
	entry := fmt.Sprintf(`{"mediaType":"%s","digest":"%s","size":%d`, img.ManifestType, testimage.Digest(img.Manifest), len(img.Manifest))
	ref := `,"annotations":{"org.opencontainers.image.ref.name":`
	want := `{"x-first":{"a":[1, 2]},"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aa","size":7,  "x":1` + ref + `"other"}},` +
		entry + ref + `"tag"}},{"digest":"sha256:cc"},` + entry + ref + `"new"}},` + entry + `}],"annotations":{"k":"<v>"}}`
	if got, err := os.ReadFile(filepath.Join(dir, "index.json")); err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
}

func TestHasAndReuse(t *testing.T) {
	img := testimage.NewImage(3, testimage.ImageOptions{Layers: 2})
	good, bad := img.Layers[0], img.Layers[1]
	for name, f := range forms {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			must(t, f.write(img, path))
			d, err := f.create(t.Context(), path)
			must(t, err)
			defer d.Close()
			file := filepath.Join(path, d.form.blob(digest.Digest(bad.Digest), false))
			flipped := bytes.Clone(bad.Blob)
			flipped[100] ^= 1
			must(t, os.WriteFile(file, flipped, 0o644))
			has := func(d *Destination, blob string, size int) bool {
				ok, err := d.Has(t.Context(), digest.Digest(blob), int64(size))
				if err != nil {
					t.Error(err)
				}
				return ok
			}
			if !has(d, good.Digest, len(good.Blob)) || has(d, good.Digest, 1) || has(d, bad.Digest, len(bad.Blob)) || has(d, testimage.Digest(nil), 0) {
				t.Error("has what it has not, or the other way round")
			}
			if _, err := d.Has(t.Context(), "sha256:../../x", 1); !errors.Is(err, kimg.ErrInvalid) {
				t.Errorf("a path as digest: %v", err)
			}
			if _, _, err := d.Put(t.Context(), digest.Digest(bad.Digest), -1, bytes.NewReader(bad.Blob)); err != nil || !has(d, bad.Digest, len(bad.Blob)) {
				t.Errorf("staged: %v", err)
			}
			if _, _, err := d.Put(t.Context(), "", -1, bytes.NewReader(img.Config)); err != nil {
				t.Error(err)
			}
			must(t, d.Commit(t.Context(), img.Manifest, img.ManifestType))
			must(t, d.Close())
			s, err := f.open(path)
			must(t, err)
			check(t, s, img)

			d, err = f.create(t.Context(), path)
			must(t, err)
			defer d.Close()
			if !has(d, good.Digest, len(good.Blob)) {
				t.Error("gone")
			}
			must(t, os.Remove(filepath.Join(path, d.form.blob(digest.Digest(good.Digest), false))))
			if err := d.Commit(t.Context(), img.Manifest, img.ManifestType); !errors.Is(err, kimg.ErrBusy) {
				t.Errorf("a blob taken away: %v", err)
			}
		})
	}
}

func TestPutVerifies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := CreateDir(t.Context(), path, Options{})
	must(t, err)
	right := digest.FromString("content")
	for name, c := range map[string]struct {
		d     digest.Digest
		size  int64
		class kimg.Class
	}{
		"digest":    {digest.FromString("other"), 7, kimg.ErrIntegrity},
		"short":     {right, 8, kimg.ErrIntegrity},
		"long":      {right, 6, kimg.ErrIntegrity},
		"size only": {"", 6, kimg.ErrIntegrity},
		"size more": {"", 8, kimg.ErrIntegrity},
		"huge":      {right, 64<<30 + 1, kimg.ErrLimit},
		"algorithm": {"md5:9a0364b9e99bb480dd25e1f0284c8555", 7, kimg.ErrUnsupported},
		"path":      {"sha256:../x", 7, kimg.ErrInvalid},
	} {
		if _, _, err := d.Put(t.Context(), c.d, c.size, strings.NewReader("content")); kimg.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := d.Put(ctx, right, 7, strings.NewReader("content")); !errors.Is(err, kimg.ErrInterrupted) && kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Errorf("cancelled: %v", err)
	}
	if blobs := d.area.Blobs(); len(blobs) != 0 {
		t.Errorf("staged %v", blobs)
	}
	must(t, d.Close())
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that was made is left: %v", err)
	}
}

func TestRefusedDestinations(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error
		oci     kimg.Class
		dir     kimg.Class
	}{
		"a file":        {func(d string) error { return os.WriteFile(d, nil, 0o600) }, kimg.ErrExists, kimg.ErrExists},
		"other files":   {func(d string) error { return file(d, "notes", "x") }, kimg.ErrExists, kimg.ErrExists},
		"no index":      {func(d string) error { return file(d, "index.json", "{}") }, kimg.ErrInvalid, kimg.ErrExists},
		"other version": {func(d string) error { return file(d, "oci-layout", `{"imageLayoutVersion":"2"}`) }, kimg.ErrUnsupported, kimg.ErrExists},
		"odd version":   {func(d string) error { return file(d, "version", "1\n") }, kimg.ErrExists, kimg.ErrExists},
		"index a link": {func(d string) error {
			return errors.Join(os.Mkdir(d, 0o755), os.Symlink("/etc/passwd", filepath.Join(d, "index.json")))
		}, kimg.ErrUnsafe, kimg.ErrExists},
		"version a FIFO": {func(d string) error {
			return errors.Join(os.Mkdir(d, 0o755), syscall.Mkfifo(filepath.Join(d, "version"), 0o600))
		}, kimg.ErrExists, kimg.ErrUnsafe},
	} {
		for form, want := range map[string]kimg.Class{"oci": c.oci, "dir": c.dir} {
			t.Run(name+"/"+form, func(t *testing.T) {
				top := t.TempDir()
				path := filepath.Join(top, "x")
				must(t, c.prepare(path))
				before := snapshot(t, top)
				err := within(t, func() error {
					d, err := forms[form].create(t.Context(), path)
					if err == nil {
						d.Close()
					}
					return err
				})
				if kimg.ClassOf(err) != want {
					t.Errorf("%v, want class %s", err, want)
				}
				same(t, before, top)
			})
		}
	}
	for _, name := range []string{"a b", "-x", "a:", "../x", strings.Repeat("x", 256), "@0"} {
		if _, err := CreateOCI(t.Context(), filepath.Join(t.TempDir(), "x"), name, Options{}); err == nil {
			t.Errorf("the name %q", name)
		}
	}
}

// TestHostileLayoutIsNotWrittenThrough has the places a commit writes to lead elsewhere.
func TestHostileLayoutIsNotWrittenThrough(t *testing.T) {
	img, old := testimage.NewImage(4, testimage.ImageOptions{}), testimage.NewImage(5, testimage.ImageOptions{})
	layer := digest.Digest(img.Layers[0].Digest)
	for form, places := range map[string][]string{
		"oci": {"blobs", "blobs/sha256", BlobPath(layer), BlobPath(digest.FromBytes(img.Manifest))},
		"dir": {layer.Encoded()},
	} {
		for _, place := range places {
			t.Run(form+"/"+filepath.Base(place), func(t *testing.T) {
				top := t.TempDir()
				canary, path := filepath.Join(top, "canary"), filepath.Join(top, "x")
				must(t, os.MkdirAll(filepath.Join(canary, "sha256"), 0o755))
				must(t, forms[form].write(old, path))
				must(t, os.RemoveAll(filepath.Join(path, place)))
				must(t, os.Symlink(canary, filepath.Join(path, place)))
				before := snapshot(t, top)
				d, err := forms[form].create(t.Context(), path)
				must(t, err)
				if err := write(t.Context(), d, img); !errors.Is(err, kimg.ErrUnsafe) {
					t.Errorf("%v", err)
				}
				must(t, d.Close())
				same(t, untimed(before), top)
			})
		}
	}
}

// TestEveryStepIsTakenBack fails each step of a commit in turn.
func TestEveryStepIsTakenBack(t *testing.T) {
	img, old := testimage.NewImage(6, testimage.ImageOptions{Layers: 2}), testimage.NewImage(7, testimage.ImageOptions{})
	for name, f := range forms {
		for _, place := range []string{"absent/below", "image"} {
			t.Run(name+"/"+place, func(t *testing.T) {
				top := t.TempDir()
				path := filepath.Join(top, place)
				if place == "image" {
					must(t, f.write(old, path))
					// A damaged blob must come back too.
					must(t, os.MkdirAll(filepath.Join(path, "blobs", "sha256"), 0o755))
					must(t, os.WriteFile(filepath.Join(path, ociForm{}.blob(digest.Digest(img.Layers[0].Digest), false)), []byte("damaged"), 0o644))
				}
				before := untimed(snapshot(t, top))
				steps := 0
				for n := 0; ; n++ {
					d, err := f.create(t.Context(), path)
					must(t, err)
					done := 0
					d.step = func() error {
						if done++; done > n {
							return syscall.ENOSPC
						}
						return nil
					}
					err = write(t.Context(), d, img)
					must(t, d.Close())
					if err == nil {
						break
					}
					if kimg.ClassOf(err) != kimg.ErrNoSpace {
						t.Fatalf("step %d: %v", n, err)
					}
					same(t, before, top)
					steps++
				}
				if steps < 6 {
					t.Errorf("only %d steps", steps)
				}
				s, err := f.open(path)
				must(t, err)
				check(t, s, img)
			})
		}
	}
}

const killEnv = "KIMG_TEST_KILL_AT"

// TestKilledAtEveryStep kills a process at each step of a commit; the next one finds the old image or the new one, and
// writes its own.
func TestKilledAtEveryStep(t *testing.T) {
	img, old := testimage.NewImage(8, testimage.ImageOptions{}), testimage.NewImage(9, testimage.ImageOptions{})
	if at := os.Getenv(killEnv); at != "" {
		args := strings.SplitN(at, " ", 3)
		n, err := strconv.Atoi(args[0])
		must(t, err)
		d, err := forms[args[1]].create(t.Context(), args[2])
		must(t, err)
		d.step = func() error {
			if n--; n < 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		}
		must(t, write(t.Context(), d, img))
		must(t, d.Close())
		return
	}
	for name, f := range forms {
		for _, place := range []string{"absent/below", "image"} {
			t.Run(name+"/"+place, func(t *testing.T) {
				for n := 0; ; n++ {
					top := t.TempDir()
					path := filepath.Join(top, place)
					if place == "image" {
						must(t, f.write(old, path))
					}
					cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAtEveryStep$")
					cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", killEnv, n, name, path))
					out, err := cmd.CombinedOutput()
					if err == nil {
						break
					}
					if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
						t.Fatalf("%v\n%s", err, out)
					}
					if s, err := f.open(path); err == nil { // what can be opened is whole
						m, _ := s.Manifest(t.Context())
						check(t, s, map[bool]testimage.Image{true: img, false: old}[bytes.Equal(m, img.Manifest)])
					} else if place == "image" {
						t.Errorf("killed at %d: %v", n, err)
					}
					d, err := f.create(t.Context(), path)
					must(t, err)
					must(t, write(t.Context(), d, img))
					must(t, d.Close())
					s, err := f.open(path)
					must(t, err)
					check(t, s, img)
					noStaging(t, top)
				}
			})
		}
	}
}

func TestTwoWritersOfOneLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "layout")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			d, err := CreateOCI(t.Context(), path, fmt.Sprintf("tag%d", i), Options{NoSync: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			if err := write(t.Context(), d, testimage.NewImage(uint64(i/2), testimage.ImageOptions{})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		s, err := OpenOCI(path, fmt.Sprintf("tag%d", i))
		must(t, err)
		check(t, s, testimage.NewImage(uint64(i/2), testimage.ImageOptions{}))
	}
}

// TestWritersThatGiveUp: who writes nothing takes the directories away that he made, also while somebody else begins there.
func TestWritersThatGiveUp(t *testing.T) {
	top := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				d, err := CreateOCI(t.Context(), filepath.Join(top, "a/layout"), "x", Options{NoSync: true})
				if err == nil {
					err = d.Close()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCommitWaitsForTheLockAsLongAsItMay(t *testing.T) {
	path := t.TempDir()
	d, err := CreateOCI(t.Context(), path, "x", Options{})
	must(t, err)
	defer d.Close()
	held, err := os.Open(path)
	must(t, err)
	defer held.Close()
	must(t, syscall.Flock(int(held.Fd()), syscall.LOCK_EX))
	ctx, cancel := context.WithCancel(t.Context())
	d.area.Put(ctx, "", -1, strings.NewReader("x"))
	cancel()
	img := testimage.NewImage(1, testimage.ImageOptions{})
	if err := d.Commit(ctx, img.Manifest, img.ManifestType); kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Errorf("%v", err)
	}
}

func TestInstances(t *testing.T) {
	one, two := testimage.NewImage(1, testimage.ImageOptions{}), testimage.NewImage(2, testimage.ImageOptions{})
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	for name, f := range forms {
		path := filepath.Join(t.TempDir(), name)
		d, err := f.create(t.Context(), path)
		must(t, err)
		for _, img := range []testimage.Image{one, two} {
			must(t, put(t.Context(), d, img))
			must(t, d.PutManifest(t.Context(), digest.FromBytes(img.Manifest), img.Manifest))
		}
		must(t, d.Commit(t.Context(), index, "application/vnd.oci.image.index.v1+json"))
		must(t, d.Close())
		s, err := f.open(path)
		must(t, err)
		for _, img := range []testimage.Image{one, two} {
			m, err := s.(interface {
				ManifestByDigest(context.Context, digest.Digest) ([]byte, error)
			}).ManifestByDigest(t.Context(), digest.FromBytes(img.Manifest))
			if err != nil || !bytes.Equal(m, img.Manifest) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestSkopeoReadsWhatWeWrote(t *testing.T) {
	testenv.Need(t, "skopeo")
	top := t.TempDir()
	img := testimage.NewImage(10, testimage.ImageOptions{Layers: 2, Gzip: true})
	oci, dir := filepath.Join(top, "oci"), filepath.Join(top, "dir")
	for _, name := range []string{"example.org/name:tag", "other"} {
		d, err := CreateOCI(t.Context(), oci, name, Options{})
		must(t, err)
		must(t, write(t.Context(), d, img))
		must(t, d.Close())
	}
	d, err := CreateDir(t.Context(), dir, Options{})
	must(t, err)
	must(t, write(t.Context(), d, img))
	must(t, d.Close())
	for i, ref := range []string{"oci:" + oci + ":example.org/name:tag", "oci:" + oci + ":other", "dir:" + dir} {
		skopeo(t, "copy", "--preserve-digests", ref, fmt.Sprintf("dir:%s/copy%d", top, i))
		if m, err := os.ReadFile(fmt.Sprintf("%s/copy%d/manifest.json", top, i)); err != nil || !bytes.Equal(m, img.Manifest) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	// And the other way round: skopeo adds to what we wrote, and replaces it.
	skopeo(t, "copy", "dir:"+dir, "oci:"+oci+":third")
	skopeo(t, "copy", "oci:"+oci+":other", "dir:"+dir)
	s, err := OpenOCI(oci, "example.org/name:tag")
	must(t, err)
	check(t, s, img)
}

func file(dir, name, content string) error {
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// noStaging fails when a staging directory is left anywhere.
func noStaging(t *testing.T, dir string) {
	t.Helper()
	for _, i := range snapshot(t, dir) {
		if staging.Is(filepath.Base(i.Path)) {
			t.Errorf("%s is left", i.Path)
		}
	}
}

// untimed drops the times of directories: entries that came and went leave one.
func untimed(items []testimage.Item) []testimage.Item {
	for i := range items {
		if items[i].Type == 'd' {
			items[i].Sec, items[i].Nsec = 0, 0
		}
	}
	return items
}
