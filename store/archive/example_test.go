package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store/archive"
)

// An image without layers is written as docker load reads it, and read back: the configuration keeps its bytes.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// v2s2
	// notfound
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "app.tar")

	config, _, err := convert.NewConfig("linux", "amd64", "").JSON(convert.DockerV2S2)
	if err != nil {
		return err
	}
	dest, err := archive.CreateDocker(ctx, file, []string{"localhost/app:1"}, archive.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer dest.Close() // without Commit it takes everything back
	d, size, err := dest.Put(ctx, "", -1, bytes.NewReader(config))
	if err != nil {
		return err
	}
	manifest, mediaType, err := convert.Manifest(convert.DockerV2S2, ispec.Descriptor{Digest: d, Size: size}, nil, nil)
	if err != nil {
		return err
	}
	if err := dest.Commit(ctx, manifest, mediaType); err != nil {
		return err
	}

	src, err := archive.OpenDocker(ctx, file, "localhost/app:1", archive.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	back, err := src.Manifest(ctx)
	if err != nil {
		return err
	}
	format, err := convert.Detect(back, "")
	fmt.Println(format)
	if err != nil {
		return err
	}
	_, err = archive.OpenDocker(ctx, file, "localhost/other:1", archive.Options{})
	fmt.Println(kimg.ClassOf(err))
	return nil
}
