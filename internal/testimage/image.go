package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Image is a small image made from a seed: the same seed gives the same bytes, always.
type Image struct {
	Config, Manifest []byte
	ManifestType     string
	Layers           []ImageLayer // base first
}

// ImageLayer is one layer of an [Image].
type ImageLayer struct {
	DiffID, Digest string // sha256:…, of the tar and of Blob
	Tar, Blob      []byte
}

// ImageOptions say how an [Image] is made. The zero value is an OCI image of one uncompressed layer.
type ImageOptions struct {
	Layers int      // 0: 1
	Tars   [][]byte // the layers themselves, base first, instead of random ones
	Docker bool
	Gzip   bool
	// Change edits the configuration before it is written.
	Change func(config map[string]any)
}

// NewImage makes an image.
func NewImage(seed uint64, o ImageOptions) Image {
	r := rand.New(rand.NewPCG(seed, 0))
	var img Image
	diffIDs, history, layers := []string{}, []any{}, []any{}
	layerType, configType := "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.config.v1+json"
	img.ManifestType = "application/vnd.oci.image.manifest.v1+json"
	if o.Docker {
		layerType, configType = "application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.container.image.v1+json"
		img.ManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	}
	if o.Gzip {
		layerType += map[bool]string{true: ".gzip", false: "+gzip"}[o.Docker]
	}
	created := time.Unix(1700000000, 0).UTC().Format(time.RFC3339)
	for i := range max(o.Layers, len(o.Tars), 1) {
		var l ImageLayer
		if o.Tars != nil {
			l.Tar = o.Tars[i]
		} else {
			l.Tar = randomLayer(r, i)
		}
		l.Blob = l.Tar
		if o.Gzip {
			l.Blob = compress(l.Tar)
		}
		l.DiffID, l.Digest = Digest(l.Tar), Digest(l.Blob)
		img.Layers = append(img.Layers, l)
		diffIDs = append(diffIDs, l.DiffID)
		history = append(history, map[string]any{"created": created, "created_by": fmt.Sprintf("layer %d of seed %d", i, seed)})
		layers = append(layers, map[string]any{"mediaType": layerType, "digest": l.Digest, "size": len(l.Blob)})
	}
	config := map[string]any{
		"architecture": "amd64", "os": "linux", "created": created,
		"config":  map[string]any{"Env": []string{"PATH=/usr/bin:/bin", fmt.Sprintf("SEED=%d", seed)}, "Cmd": []string{"/bin/file0"}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffIDs},
		"history": history,
	}
	if o.Change != nil {
		o.Change(config)
	}
	img.Config = toJSON(config)
	img.Manifest = toJSON(map[string]any{
		"schemaVersion": 2, "mediaType": img.ManifestType,
		"config": map[string]any{"mediaType": configType, "digest": Digest(img.Config), "size": len(img.Config)},
		"layers": layers,
	})
	return img
}

// compress returns data by gzip. A write to memory cannot fail.
func compress(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

// randomLayer is a tar of a few directories, files and links.
func randomLayer(r *rand.Rand, level int) []byte {
	var entries []entry
	add := func(h tar.Header, content string) {
		h.ModTime = time.Unix(1700000000+int64(level), 0)
		entries = append(entries, entry{h, content})
	}
	for _, d := range []string{"bin/", "etc/", fmt.Sprintf("layer%d/", level)} {
		add(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	for i := range 3 + r.IntN(5) {
		content := make([]byte, r.IntN(4096))
		for j := range content {
			content[j] = byte(r.Uint32())
		}
		add(tar.Header{Name: fmt.Sprintf("layer%d/file%d", level, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), Uid: r.IntN(3), Gid: r.IntN(3)}, string(content))
	}
	add(tar.Header{Name: "bin/file0", Typeflag: tar.TypeReg, Mode: 0o755, Size: 10}, "#!/bin/sh\n")
	add(tar.Header{Name: fmt.Sprintf("layer%d/link", level), Typeflag: tar.TypeSymlink, Linkname: "file0", Mode: 0o777}, "")
	return pack(entries...)
}

// WriteOCI writes the image as an OCI layout under the name tag. The directory may hold other images of this package.
func (img Image) WriteOCI(dir, tag string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	files := map[string][]byte{
		filepath.Join(dir, "oci-layout"):               []byte(`{"imageLayoutVersion":"1.0.0"}`),
		filepath.Join(blobs, Digest(img.Config)[7:]):   img.Config,
		filepath.Join(blobs, Digest(img.Manifest)[7:]): img.Manifest,
	}
	for _, l := range img.Layers {
		files[filepath.Join(blobs, l.Digest[7:])] = l.Blob
	}
	index := map[string]any{"schemaVersion": 2, "manifests": []any{}}
	if old, err := os.ReadFile(filepath.Join(dir, "index.json")); err == nil {
		if err := json.Unmarshal(old, &index); err != nil {
			return err
		}
	}
	list, _ := index["manifests"].([]any)
	index["manifests"] = append(list, map[string]any{
		"mediaType": img.ManifestType, "digest": Digest(img.Manifest), "size": len(img.Manifest),
		"annotations": map[string]string{"org.opencontainers.image.ref.name": tag},
	})
	files[filepath.Join(dir, "index.json")] = toJSON(index)
	return writeAll(blobs, files)
}

// WriteDir writes the image in the form of the dir: transport.
func (img Image) WriteDir(dir string) error {
	files := map[string][]byte{
		filepath.Join(dir, "version"):              []byte("Directory Transport Version: 1.1\n"),
		filepath.Join(dir, "manifest.json"):        img.Manifest,
		filepath.Join(dir, Digest(img.Config)[7:]): img.Config,
	}
	for _, l := range img.Layers {
		files[filepath.Join(dir, l.Digest[7:])] = l.Blob
	}
	return writeAll(dir, files)
}

// Digest is the sha256 digest of some bytes, as images name them.
func Digest(data []byte) string {
	h := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(h[:])
}

func writeAll(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// toJSON returns v as JSON, nothing for what JSON cannot say: then no reader accepts the image.
func toJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}
