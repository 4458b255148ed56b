package transfer_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store/transfer"
)

// U10: podman 4 empties the directory in which layers are made whenever one of its commands ends. What was lost is made again,
// whether it was half made or done.
func TestSweptByOthers(t *testing.T) {
	img := testimage.NewImage(31, testimage.ImageOptions{Layers: 3, Gzip: true})
	for _, when := range []string{"half made", "made", "in part"} {
		t.Run(when, func(t *testing.T) {
			st, src := newStore(t, "overlay"), source(img)
			var once sync.Once
			sweep := func() { once.Do(func() { must(t, os.RemoveAll(filepath.Join(st.root, "root/overlay/staging"))) }) }
			ended := 0
			o := transfer.Options{Jobs: 1, Progress: func(e transfer.Event) {
				if !e.End.IsZero() {
					ended++
				}
				switch {
				case ended < len(img.Layers):
				case when == "made":
					sweep()
				case when == "in part":
					once.Do(func() { sweepBegins(t, filepath.Join(st.root, "root/overlay/staging")) })
				}
			}}
			src.opened = func(d digest.Digest) {
				if when == "half made" && d.String() == img.Layers[2].Digest {
					sweep()
				}
			}
			r, err := pull(t, st, src, transfer.PullOptions{Names: []string{"swept"}, Options: o})
			must(t, err)
			for _, l := range r.Layers {
				must(t, st.ExportLayer(t.Context(), l.ID, io.Discard))
			}
		})
	}
}

// sweepBegins removes what a directory has in the order in which it lists it, up to the first file of a layer.
func sweepBegins(t *testing.T, staging string) {
	for dir := staging; ; {
		d, err := os.Open(dir)
		must(t, err)
		names, err := d.Readdirnames(-1)
		must(t, errors.Join(err, d.Close()))
		if len(names) == 0 {
			must(t, os.Remove(dir))
			dir = filepath.Dir(dir)
		}
		for _, name := range names {
			info, err := os.Lstat(filepath.Join(dir, name))
			must(t, err)
			if info.IsDir() {
				dir = filepath.Join(dir, name)
				break
			}
			must(t, os.Remove(filepath.Join(dir, name)))
			if strings.Contains(dir, "/layer.") && info.Mode().IsRegular() && info.Size() > 0 {
				return
			}
		}
	}
}
