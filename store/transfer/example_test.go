package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/transfer"
)

// scratch is the smallest source there is: an image without layers.
type scratch struct{ manifest, config []byte }

func (s scratch) Manifest(context.Context) ([]byte, error) { return s.manifest, nil }

func (s scratch) ManifestByDigest(_ context.Context, d digest.Digest) ([]byte, error) {
	return nil, kimg.Errorf(kimg.ErrNotFound, d.String(), "not an index")
}

func (s scratch) Blob(context.Context, digest.Digest) (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(s.config)), int64(len(s.config)), nil
}

// An image comes into a store.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// [localhost/scratch:latest], 0 layers unpacked
}

func example(ctx context.Context) error {
	config, _, err := convert.NewConfig("linux", "amd64", "").JSON(convert.OCI)
	if err != nil {
		return err
	}
	manifest, _, err := convert.Manifest(convert.OCI, ispec.Descriptor{Digest: digest.FromBytes(config), Size: int64(len(config))}, nil, nil)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(store.Options{Root: dir + "/root", RunRoot: dir + "/run", Driver: "vfs", DriverOptions: []string{}, NoSync: true})
	if err != nil {
		return err
	}
	defer st.Storage().Shutdown(true)
	r, err := transfer.Pull(ctx, st, scratch{manifest, config}, transfer.PullOptions{Names: []string{"scratch"}, AnyPlatform: true})
	if err != nil {
		return err
	}
	fmt.Printf("%v, %d layers unpacked\n", r.Image.Names, r.Unpacked)
	return nil
}
