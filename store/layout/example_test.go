package layout_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store/layout"
)

// An image without layers is written to an OCI image layout, and read back.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// nothing there before Commit: true
	// application/vnd.oci.image.manifest.v1+json app
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "layout")

	config, _, err := convert.NewConfig("linux", "amd64", "").JSON(convert.OCI)
	if err != nil {
		return err
	}
	dest, err := layout.CreateOCI(ctx, path, "app", layout.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer dest.Close() // without Commit it takes everything back
	d, size, err := dest.Put(ctx, "", -1, bytes.NewReader(config))
	if err != nil {
		return err
	}
	manifest, mediaType, err := convert.Manifest(convert.OCI, ispec.Descriptor{Digest: d, Size: size}, nil, nil)
	if err != nil {
		return err
	}
	_, err = layout.OpenOCI(path, "app")
	fmt.Println("nothing there before Commit:", kimg.ClassOf(err) == kimg.ErrNotFound)
	if err := dest.Commit(ctx, manifest, mediaType); err != nil {
		return err
	}

	src, err := layout.OpenOCI(path, "app")
	if err != nil {
		return err
	}
	defer src.Close()
	entry := src.Descriptor()
	fmt.Println(entry.MediaType, entry.Annotations[ispec.AnnotationRefName])
	return nil
}
