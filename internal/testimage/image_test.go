package testimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
)

func TestImageIsReproducible(t *testing.T) {
	a, b, c := NewImage(7, ImageOptions{Layers: 3}), NewImage(7, ImageOptions{Layers: 3}), NewImage(8, ImageOptions{Layers: 3})
	if !bytes.Equal(a.Manifest, b.Manifest) || bytes.Equal(a.Manifest, c.Manifest) {
		t.Error("the seed does not decide the image")
	}
}

// TestPeersReadImages holds our idea of the formats against another implementation.
func TestPeersReadImages(t *testing.T) {
	testenv.Need(t, "skopeo")
	for name, o := range map[string]ImageOptions{
		"oci": {Layers: 2}, "oci gzip": {Gzip: true}, "docker": {Layers: 2, Docker: true}, "docker gzip": {Docker: true, Gzip: true},
	} {
		img := NewImage(1, o)
		dir := t.TempDir()
		write, ref := img.WriteDir, "dir:"+dir
		if !o.Docker {
			write, ref = func(d string) error { return img.WriteOCI(d, "t") }, "oci:"+dir+":t"
		}
		if err := write(dir); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("skopeo", "--insecure-policy", "copy", "-q", ref, "dir:"+filepath.Join(t.TempDir(), "out")).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestHostileTars makes sure that every tar says what its name promises to a reader that trusts it.
func TestHostileTars(t *testing.T) {
	seen := map[string]bool{}
	for _, h := range HostileTars("/canary/file") {
		if seen[h.Name] {
			t.Errorf("two are named %q", h.Name)
		}
		if seen[h.Name] = true; len(h.Tar) == 0 {
			t.Errorf("%s: no tar says this", h.Name)
		}
		r := tar.NewReader(bytes.NewReader(h.Tar))
		for {
			hdr, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				if !h.Refuse {
					t.Errorf("%s: only a tar that must be refused may be malformed: %v", h.Name, err)
				}
				break
			}
			if strings.Contains(h.Name, "dot-dot") && !strings.Contains(hdr.Name+hdr.Linkname, "..") && hdr.Name != "a" && !strings.Contains(hdr.Name, ".wh.") {
				t.Errorf("%s: %q", h.Name, hdr.Name)
			}
		}
	}
}
