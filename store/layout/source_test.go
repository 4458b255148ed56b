package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

func TestReadOCI(t *testing.T) {
	dir := t.TempDir()
	one, two := testimage.NewImage(1, testimage.ImageOptions{Layers: 2, Gzip: true}), testimage.NewImage(2, testimage.ImageOptions{Docker: true})
	must(t, one.WriteOCI(dir, "one"))
	must(t, two.WriteOCI(dir, "two"))
	for name, want := range map[string]testimage.Image{"one": one, "two": two, "@0": one, "@1": two} {
		s, err := OpenOCI(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Manifest(t.Context())
		if err != nil || !bytes.Equal(m, want.Manifest) {
			t.Errorf("%s: another manifest, %v", name, err)
		}
		for _, l := range want.Layers {
			readBlob(t, s, l.Digest, l.Blob)
		}
		readBlob(t, s, testimage.Digest(want.Config), want.Config)
		if _, _, err := s.Blob(t.Context(), digest.FromString("nothing")); kimg.ClassOf(err) != kimg.ErrNotFound || !strings.Contains(err.Error(), "blob-missing") {
			t.Errorf("a blob that is not there: %v", err)
		}
		must(t, s.Close())
	}
	for name, want := range map[string]struct {
		class kimg.Class
		text  string
	}{
		"":      {kimg.ErrInvalid, `"one", "two"`},
		"three": {kimg.ErrNotFound, `"one", "two"`},
		"@2":    {kimg.ErrNotFound, "there are 2"},
		"@-1":   {kimg.ErrInvalid, "not the number"},
		"@x":    {kimg.ErrInvalid, "not the number"},
	} {
		if _, err := OpenOCI(dir, name); kimg.ClassOf(err) != want.class || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	img := testimage.NewImage(3, testimage.ImageOptions{Layers: 3})
	must(t, img.WriteDir(dir))
	must(t, os.WriteFile(filepath.Join(dir, "signature-1"), []byte("first"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "signature-2"), []byte("second"), 0o600))
	other := testimage.NewImage(4, testimage.ImageOptions{})
	instance := digest.FromBytes(other.Manifest)
	must(t, os.WriteFile(filepath.Join(dir, instance.Encoded()+".manifest.json"), other.Manifest, 0o600))

	s, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if m, err := s.Manifest(t.Context()); err != nil || !bytes.Equal(m, img.Manifest) {
		t.Errorf("another manifest, %v", err)
	}
	if m, err := s.ManifestByDigest(t.Context(), instance); err != nil || !bytes.Equal(m, other.Manifest) {
		t.Errorf("another instance, %v", err)
	}
	if sigs, err := s.Signatures(t.Context(), ""); err != nil || len(sigs) != 2 || string(sigs[1]) != "second" {
		t.Errorf("signatures %q, %v", sigs, err)
	}
	for _, l := range img.Layers {
		readBlob(t, s, l.Digest, l.Blob)
	}
	must(t, os.WriteFile(filepath.Join(dir, instance.Encoded()+".manifest.json"), img.Manifest, 0o600))
	if _, err := s.ManifestByDigest(t.Context(), instance); !errors.Is(err, kimg.ErrIntegrity) {
		t.Errorf("an instance with another digest: %v", err)
	}
}

// TestHostileSources aims every name a source reads at something that must not be read.
func TestHostileSources(t *testing.T) {
	img := testimage.NewImage(5, testimage.ImageOptions{})
	layer := digest.Digest(img.Layers[0].Digest)
	blob := filepath.Join("blobs", "sha256", layer.Encoded())
	manifest := filepath.Join("blobs", "sha256", digest.FromBytes(img.Manifest).Encoded())
	for _, form := range []string{"oci", "dir"} {
		files := []string{"index.json", "oci-layout", "blobs", "blobs/sha256", blob, manifest}
		if form == "dir" {
			files = []string{"manifest.json", "version", layer.Encoded()}
		}
		for _, file := range files {
			for kind, put := range map[string]func(path string) error{
				"a link outside": func(p string) error { return os.Symlink("/etc", p) },
				"a link inside":  func(p string) error { return os.Symlink("elsewhere", p) },
				"a FIFO":         func(p string) error { return syscall.Mkfifo(p, 0o600) },
				"a directory":    func(p string) error { return os.Mkdir(p, 0o700) },
			} {
				t.Run(form+"/"+filepath.Base(file)+"/"+kind, func(t *testing.T) {
					dir := t.TempDir()
					if form == "oci" {
						must(t, img.WriteOCI(dir, "x"))
					} else {
						must(t, img.WriteDir(dir))
					}
					path := filepath.Join(dir, file)
					must(t, os.Rename(path, filepath.Join(dir, "elsewhere")))
					must(t, put(path))
					before := snapshot(t, dir)
					err := within(t, func() error { return readEverything(t, form, dir, layer) })
					class := kimg.ClassOf(err)
					if class != kimg.ErrUnsafe && !(kind == "a directory" && class == kimg.ErrNotFound) {
						t.Errorf("%v", err)
					}
					same(t, before, dir)
				})
			}
		}
	}
}

func TestHostileIndexes(t *testing.T) {
	const d = `"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`
	entry := func(more string) string {
		return `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",` + more + `}]}`
	}
	for name, c := range map[string]struct {
		index string
		class kimg.Class
		word  string
	}{
		"empty":          {"", kimg.ErrInvalid, "json"},
		"null":           {"null", kimg.ErrInvalid, "json-type"},
		"two documents":  {"{}{}", kimg.ErrInvalid, "json"},
		"no version":     {"{}", kimg.ErrInvalid, "schema-version"},
		"duplicate":      {`{"schemaVersion":2,"schemaVersion":2}`, kimg.ErrInvalid, "duplicate-key"},
		"no entries":     {`{"schemaVersion":2,"manifests":[]}`, kimg.ErrNotFound, "no image"},
		"null entries":   {`{"schemaVersion":2,"manifests":null}`, kimg.ErrNotFound, "no image"},
		"null entry":     {`{"schemaVersion":2,"manifests":[null]}`, kimg.ErrInvalid, "json-type"},
		"other type":     {`{"schemaVersion":2,"mediaType":"x","manifests":[]}`, kimg.ErrInvalid, "media-type"},
		"path as digest": {entry(`"size":1,"digest":"sha256:../../../../etc/passwd"`), kimg.ErrInvalid, "digest"},
		"md5":            {entry(`"size":1,"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"`), kimg.ErrInvalid, "digest"},
		"negative size":  {entry(`"size":-1,` + d), kimg.ErrInvalid, "size"},
		"huge size":      {entry(`"size":4194305,` + d), kimg.ErrLimit, "too-big"},
		"deep":           {strings.Repeat("[", 1000), kimg.ErrLimit, "depth"},
		"no type":        {`{"schemaVersion":2,"manifests":[{"size":1,` + d + `}]}`, kimg.ErrUnsupported, "media-type"},
		"wrong size":     {entry(`"size":1,` + d), kimg.ErrIntegrity, "size"},
		"too large":      {strings.Repeat(" ", 4<<20) + "{}", kimg.ErrLimit, "too-big"},
		"many entries":   {`{"schemaVersion":2,"manifests":[{}` + strings.Repeat(",{}", 10000) + `]}`, kimg.ErrLimit, "entries"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "blobs", "sha256", digest.FromString("").Encoded()), nil, 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "index.json"), []byte(c.index), 0o600))
			s, err := OpenOCI(dir, "")
			if err == nil {
				_, err = s.Manifest(t.Context())
			}
			if kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%v, want class %s, %q", err, c.class, c.word)
			}
		})
	}
}

// TestReadsWhatSkopeoWrote holds the source against the tool everybody uses.
func TestReadsWhatSkopeoWrote(t *testing.T) {
	testenv.Need(t, "skopeo")
	dir := t.TempDir()
	img := testimage.NewImage(6, testimage.ImageOptions{Layers: 2, Docker: true, Gzip: true})
	must(t, img.WriteDir(filepath.Join(dir, "in")))
	skopeo(t, "copy", "dir:"+filepath.Join(dir, "in"), "dir:"+filepath.Join(dir, "dir"))
	skopeo(t, "copy", "dir:"+filepath.Join(dir, "in"), "oci:"+filepath.Join(dir, "oci")+":example.org/name:tag")
	d, err := OpenDir(filepath.Join(dir, "dir"))
	must(t, err)
	defer d.Close()
	o, err := OpenOCI(filepath.Join(dir, "oci"), "example.org/name:tag")
	must(t, err)
	defer o.Close()
	for _, l := range img.Layers {
		readBlob(t, d, l.Digest, l.Blob)
		readBlob(t, o, l.Digest, l.Blob)
	}
	if _, err := o.Manifest(t.Context()); err != nil {
		t.Error(err)
	}
}

func readEverything(t *testing.T, form, dir string, d digest.Digest) error {
	var s interface {
		Manifest(context.Context) ([]byte, error)
		Blob(context.Context, digest.Digest) (io.ReadCloser, int64, error)
		Close() error
	}
	var err error
	if form == "oci" {
		s, err = OpenOCI(dir, "x")
	} else {
		s, err = OpenDir(dir)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Manifest(t.Context()); err != nil {
		return err
	}
	r, _, err := s.Blob(t.Context(), d)
	if err == nil {
		r.Close()
	}
	return err
}

func readBlob(t *testing.T, s interface {
	Blob(context.Context, digest.Digest) (io.ReadCloser, int64, error)
}, d string, want []byte) {
	t.Helper()
	r, size, err := s.Blob(t.Context(), digest.Digest(d))
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || size != int64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, size %d, want %d, %v", d, len(got), size, len(want), err)
	}
}

func within(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("blocks")
		return nil
	}
}

func snapshot(t *testing.T, dir string) []testimage.Item {
	t.Helper()
	items, err := testimage.Snapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func same(t *testing.T, before []testimage.Item, dir string) {
	t.Helper()
	if diff := testimage.Diff(untimed(before), untimed(snapshot(t, dir))); diff != nil {
		t.Errorf("changed:\n%s", strings.Join(diff, "\n"))
	}
}

func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
