package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/kimg/kimg/layerdiff/rootfs"
)

// The same files in one layer and in two: other digests of the layers, the same tree.
func ExampleLayers() {
	one, err := rootfs.Layers(context.Background(), []rootfs.Opener{tarOf("a", "b")}, rootfs.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	two, err := rootfs.Layers(context.Background(), []rootfs.Opener{tarOf("b", "c"), tarOf(".wh.c", "a")}, rootfs.Options{})
	fmt.Println(one.Digest == two.Digest, one.Entries, two.Entries, err)
	// Output: true 2 2 <nil>
}

// tarOf makes a layer of empty files.
func tarOf(names ...string) rootfs.Opener {
	return func(context.Context) (io.ReadCloser, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
				return nil, err
			}
		}
		return io.NopCloser(&b), w.Close()
	}
}
