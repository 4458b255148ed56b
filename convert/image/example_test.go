package image_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store/layout"
)

// A Docker image in a directory becomes an OCI image in a layout; nothing but the manifest differs.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// v2s2 to oci, the same configuration: true
	// valid: true
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config, err := source(ctx, filepath.Join(dir, "old"))
	if err != nil {
		return err
	}

	from, err := image.Parse("dir:" + filepath.Join(dir, "old"))
	if err != nil {
		return err
	}
	to, err := image.Parse("oci:" + filepath.Join(dir, "layout") + ":app")
	if err != nil {
		return err
	}
	c := image.New(image.Options{FailOnLoss: true})
	defer c.Close()
	r, err := c.Convert(ctx, from, to)
	if err != nil {
		return err
	}
	fmt.Printf("%s to %s, the same configuration: %t\n", r.From, r.To, r.ConfigDigest == config.Digest)
	v, err := c.Validate(ctx, to, false)
	fmt.Println("valid:", v.Valid())
	return err
}

// source writes an image without layers.
func source(ctx context.Context, path string) (ispec.Descriptor, error) {
	var desc ispec.Descriptor
	config, _, err := convert.NewConfig("linux", "amd64", "").JSON(convert.DockerV2S2)
	if err != nil {
		return desc, err
	}
	dest, err := layout.CreateDir(ctx, path, layout.Options{NoSync: true})
	if err != nil {
		return desc, err
	}
	defer dest.Close()
	if desc.Digest, desc.Size, err = dest.Put(ctx, "", -1, bytes.NewReader(config)); err != nil {
		return desc, err
	}
	manifest, mediaType, err := convert.Manifest(convert.DockerV2S2, desc, nil, nil)
	if err != nil {
		return desc, err
	}
	return desc, dest.Commit(ctx, manifest, mediaType)
}
