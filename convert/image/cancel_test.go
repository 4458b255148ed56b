package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

const (
	part  = 64 << 20 // of the large file, compressed by itself
	parts = 256
)

// compressed makes a layer with one file of 16 GiB of zeros, of which a few KiB are left: the same compressed part again and again.
func compressed(t *testing.T, with func(data []byte) []byte) []byte {
	t.Helper()
	var head bytes.Buffer
	check(t, tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "huge", Mode: 0o644, Size: part * parts, Format: tar.FormatGNU}))
	return append(with(head.Bytes()), bytes.Repeat(with(make([]byte, part)), parts)...)
}

// TestCancelled cancels a conversion, and a validation, in the middle of a layer that unpacks to 16 GiB. It stops at once and leaves nothing.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	layers := map[string][]byte{
		"gzip": compressed(t, func(data []byte) []byte {
			var b bytes.Buffer
			w := pgzip.NewWriter(&b)
			_, err := w.Write(data)
			check(t, errors.Join(err, w.Close()))
			return b.Bytes()
		}),
		"zstd": compressed(t, func(data []byte) []byte {
			w, err := zstd.NewWriter(nil)
			check(t, err)
			return w.EncodeAll(data, nil)
		}),
	}
	for name, blob := range layers {
		config, err := json.Marshal(ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("x")}}})
		check(t, err)
		m := ispec.Manifest{MediaType: ispec.MediaTypeImageManifest, Config: ispec.Descriptor{MediaType: ispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
			Layers: []ispec.Descriptor{{MediaType: ispec.MediaTypeImageLayer + "+" + name, Digest: digest.FromBytes(blob), Size: int64(len(blob))}}}
		m.SchemaVersion = 2
		manifest, err := json.Marshal(m)
		check(t, err)
		source := dir + "/" + name
		img := testimage.Image{Config: config, Manifest: manifest, Layers: []testimage.ImageLayer{{Digest: digest.FromBytes(blob).String(), Blob: blob}}}
		check(t, img.WriteDir(source))
		c := converter(t, Options{})
		to := func(dst string) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := c.Convert(ctx, ref(t, "dir:"+source), ref(t, dst))
				return err
			}
		}
		for road, do := range map[string]func(context.Context) error{
			"oci": to("oci:" + dir + "/oci:a"), "archive": to("docker-archive:" + dir + "/da:x"), "dir": to("dir:" + dir + "/dir"),
			"validate": func(ctx context.Context) error { _, err := c.Validate(ctx, ref(t, "dir:"+source), false); return err },
		} {
			t.Run(name+" "+road, func(t *testing.T) {
				before := files(t, dir)
				testenv.Stops(t, do)
				same(t, "what is there", before, files(t, dir))
			})
		}
	}
}
