package commit_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// TestCancelled cancels everything that reads a container or an image in the middle of a file of 16 GiB (which is all holes). It stops at once,
// and leaves nothing.
func TestCancelled(t *testing.T) {
	s := newStore(t)
	base := container(t, s, nil)
	edit(t, base, func(root string) { write(t, root, "small", "x") })
	img, _ := into(t, s, base, commit.Options{Names: []string{"base"}})
	huge := func(path string) {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 16<<30); err != nil {
			t.Fatal(err)
		}
	}
	c := container(t, s, img)
	edit(t, c, func(root string) { huge(filepath.Join(root, "huge")) })
	// A copy that overlay made of a file of the image, which is made as large there too: it is compared.
	below, err := s.Storage().Layer(img.TopLayer)
	if err != nil {
		t.Fatal(err)
	}
	same := container(t, s, img)
	edit(t, same, func(root string) {
		for _, path := range []string{filepath.Join(root, "small"), filepath.Join(s.Storage().GraphRoot(), "overlay", below.ID, "diff", "small")} {
			huge(path)
			if err := os.Chtimes(path, day, day); err != nil {
				t.Fatal(err)
			}
		}
	})
	dest := t.TempDir()
	copyTo := func(to string, o commit.CopyOptions, f convert.Format) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := commit.Copy(ctx, s, c.ID, references(t, to), commit.Options{Format: f}, o)
			return err
		}
	}
	for name, road := range map[string]func(ctx context.Context) error{
		"commit": func(ctx context.Context) error {
			_, err := commit.Container(ctx, s, c.ID, commit.Options{})
			return err
		},
		"commit rm": func(ctx context.Context) error {
			_, err := commit.Container(ctx, s, c.ID, commit.Options{Remove: true})
			return err
		},
		"squash": func(ctx context.Context) error {
			_, err := commit.Container(ctx, s, c.ID, commit.Options{Squash: true})
			return err
		},
		"oci":     copyTo("oci:"+dest+"/oci", commit.CopyOptions{}, convert.OCI),
		"gzip":    copyTo("oci:"+dest+"/gzip", commit.CopyOptions{Compression: layerdiff.Gzip}, convert.OCI),
		"zstd":    copyTo("oci:"+dest+"/zstd", commit.CopyOptions{Compression: layerdiff.Zstd}, convert.OCI),
		"chunked": copyTo("oci:"+dest+"/chunked", commit.CopyOptions{Compression: layerdiff.ZstdChunked}, convert.OCI),
		"docker":  copyTo("docker-archive:"+dest+"/docker.tar:x", commit.CopyOptions{}, convert.DockerV2S2),
		"diff": func(ctx context.Context) error {
			stack, err := s.Stack(ctx, c, store.StackOptions{})
			if err != nil {
				return err
			}
			defer stack.Close()
			_, err = layerdiff.Write(ctx, io.Discard, stack.Stack, layerdiff.Options{})
			return err
		},
		"export": func(ctx context.Context) error {
			stack, err := s.Compare(ctx, nil, c, store.StackOptions{})
			if err != nil {
				return err
			}
			defer stack.Close()
			_, err = layerdiff.Write(ctx, io.Discard, stack.Stack, layerdiff.Options{})
			return err
		},
		"compare": func(ctx context.Context) error {
			stack, err := s.Stack(ctx, same, store.StackOptions{})
			if err != nil {
				return err
			}
			defer stack.Close()
			for _, err := range layerdiff.Changes(ctx, stack.Stack, layerdiff.Options{}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"import": func(ctx context.Context) error {
			_, err := commit.Import(ctx, s, commit.Dir(filepath.Join(s.Storage().GraphRoot(), "overlay", c.LayerID, "diff"), layerdiff.Options{}), ispec.Platform{OS: "linux", Architecture: "amd64"}, commit.Options{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { stopsSoon(t, s, dest, road) })
	}
}

// stopsSoon cancels a road in the middle and looks at what it leaves.
func stopsSoon(t *testing.T, s *store.Store, dest string, road func(context.Context) error) {
	t.Helper()
	before := layers(t, s)
	testenv.Stops(t, road)
	if n := layers(t, s); n != before {
		t.Errorf("%d layers, before %d", n, before)
	}
	if left, err := os.ReadDir(dest); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
