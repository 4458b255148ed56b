package rootfs_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff/rootfs"
)

// FuzzLayers: no tar makes Layers panic or blame kimg, and a layer put on itself changes nothing.
func FuzzLayers(f *testing.F) {
	for seed := range uint64(4) {
		g := &generator{r: rand.New(rand.NewPCG(seed, 0))}
		f.Add(g.layer())
	}
	for _, h := range testimage.HostileTars("/canary") {
		f.Add(h.Tar)
	}
	f.Add(layer("f d/.wh.x ", "d d/", "f d/a 1", "h b d/a", "f .wh.d ", "f d/.wh..wh..opq ", "l d/a x", "f b 2"))
	f.Fuzz(func(t *testing.T, tar []byte) {
		o := rootfs.Options{MaxNames: 10000}
		once, err := rootfs.Layers(context.Background(), open(tar), o)
		if err != nil {
			if kimg.ClassOf(err) == kimg.ErrInternal || len(kimg.Line(err)) > 1100 {
				t.Fatal(err)
			}
			return
		}
		twice, err := rootfs.Layers(context.Background(), open(tar, bytes.Clone(tar)), o)
		if err != nil || once.Digest != twice.Digest {
			t.Errorf("once %+v, twice %+v, %v", once, twice, err)
		}
		// A tree that is written says the same of itself, all but the times that were not counted.
		var written bytes.Buffer
		blob := write(t, &written, tar)
		back, err := rootfs.Layers(context.Background(), open(written.Bytes()), o)
		if err != nil || back.Entries != blob.Entries || len(once.Implied) == 0 && back.Digest != once.Digest {
			t.Errorf("%+v, written %+v, %v", once, back, err)
		}
	})
}
