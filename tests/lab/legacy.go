package lab

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/kimg/kimg/internal/testimage"
)

// legacy is a helper: it makes N signed schema 1 images below dir, each in the form of dir:, with M base layers that they
// share, 14 MB each, and a small one of their own. The shared blobs are hard links of the first image's.
func legacy(dir string, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	m, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var base []testimage.ImageLayer
	for i := range m {
		base = append(base, testimage.NewLayer(uint64(i), "gzip", 24<<20))
	}
	for i := range n {
		img := testimage.NewV1(testimage.V1Options{Seed: uint64(i), Base: base, Layers: 1, Empty: 4, LayerBytes: 200 << 10, Signed: true})
		image := filepath.Join(dir, strconv.Itoa(i))
		if err := os.MkdirAll(image, 0o755); err != nil {
			return err
		}
		for _, l := range base {
			if i == 0 {
				break
			}
			name := l.Digest[len("sha256:"):]
			if err := os.Link(filepath.Join(dir, "0", name), filepath.Join(image, name)); err != nil {
				return err
			}
			delete(img.Blobs, l.Digest)
		}
		if err := img.WriteDir(image); err != nil {
			return err
		}
	}
	return nil
}
