package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
)

// tarOf writes the tree of an image.
func tarOf(t *testing.T, o Options, text string) ([]byte, error) {
	t.Helper()
	temp, err := os.Create(filepath.Join(t.TempDir(), "temp"))
	check(t, err)
	defer temp.Close()
	var out bytes.Buffer
	blob, err := converter(t, o).WriteTree(t.Context(), ref(t, text), &out, temp)
	if err == nil && (blob.Size != int64(out.Len()) || string(blob.DiffID) != testimage.Digest(out.Bytes()) || blob.Entries == 0) {
		t.Errorf("%s: %+v of %d bytes", text, blob, out.Len())
	}
	return out.Bytes(), err
}

// The tree of an image is the same wherever and in which format the image is, and nothing is written of one that is damaged.
func TestWriteTree(t *testing.T) {
	for _, good := range goodImages() {
		dir := t.TempDir()
		good.write(t, dir, func(_ string, b []byte) []byte { return b }, nil)
		src := fmt.Sprintf(good.ref, dir)
		want, err := tarOf(t, Options{}, src)
		check(t, err)
		converter(t, Options{Format: "oci"}).must(t, src, "oci:"+dir+"/other:x")
		if got, err := tarOf(t, Options{}, "oci:"+dir+"/other:x"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: another tree in another format, %v", good.name, err)
		}
		for _, blob := range good.blobs {
			for name, damage := range damages {
				bad := t.TempDir()
				good.write(t, bad, func(d string, b []byte) []byte {
					if d == blob {
						return damage(b, []byte("another blob"))
					}
					return b
				}, nil)
				if out, err := tarOf(t, Options{}, fmt.Sprintf(good.ref, bad)); err == nil || kimg.ClassOf(err) == kimg.ErrInternal || len(out) > 0 {
					t.Errorf("%s with %s %s: %d bytes, %v", good.name, blob, name, len(out), err)
				}
			}
		}
	}
}

func TestWriteTreeOfAnIndex(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", true)
	for _, arch := range []string{"amd64", "arm64"} {
		o := Options{Platform: &ispec.Platform{OS: "linux", Architecture: arch}}
		got, err := tarOf(t, o, "oci:"+dir+"/in:all")
		check(t, err)
		converter(t, o).must(t, "oci:"+dir+"/in:all", "dir:"+dir+"/"+arch)
		if want, err := tarOf(t, Options{}, "dir:"+dir+"/"+arch); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: another tree, %v", arch, err)
		}
	}
	o := Options{Platform: &ispec.Platform{OS: "linux", Architecture: "riscv64"}}
	if out, err := tarOf(t, o, "oci:"+dir+"/in:all"); kimg.ClassOf(err) != kimg.ErrNotFound || len(out) > 0 {
		t.Errorf("no such platform: %v", err)
	}
}
