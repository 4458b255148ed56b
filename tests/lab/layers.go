package lab

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layers is a helper: it writes an OCI layout with one image, named 1, of N layers with M files each, of K bytes each, that
// compress as programs do. It only depends on its arguments.
func layers(dir string, args []string) error {
	var n, files, size int
	for i, to := range []*int{&n, &files, &size} {
		var err error
		if *to, err = strconv.Atoi(args[i]); err != nil {
			return err
		}
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	m := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, Layers: make([]ispec.Descriptor, n)}
	c := ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ispec.RootFS{Type: "layers", DiffIDs: make([]digest.Digest, n)}}
	var wg sync.WaitGroup
	errs, slots := make([]error, n), make(chan struct{}, 2)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			m.Layers[i], c.RootFS.DiffIDs[i], errs[i] = packedLayer(blobs, i, files, size)
			<-slots
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var err error
	if m.Config, err = document(blobs, ispec.MediaTypeImageConfig, c); err != nil {
		return err
	}
	index := ispec.Index{Versioned: m.Versioned, MediaType: ispec.MediaTypeImageIndex, Manifests: make([]ispec.Descriptor, 1)}
	if index.Manifests[0], err = document(blobs, m.MediaType, m); err != nil {
		return err
	}
	index.Manifests[0].Annotations = map[string]string{ispec.AnnotationRefName: "1"}
	data, err := json.Marshal(index)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ispec.ImageIndexFile), data, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
	}
	return err
}

// document writes a small blob.
func document(blobs, mediaType string, v any) (ispec.Descriptor, error) {
	data, err := json.Marshal(v)
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err == nil {
		err = os.WriteFile(filepath.Join(blobs, d.Digest.Encoded()), data, 0o644)
	}
	return d, err
}

// packedLayer writes the layer's blob and returns what it is, and its diffID.
func packedLayer(blobs string, layer, files, size int) (d ispec.Descriptor, diffID digest.Digest, err error) {
	r := rand.New(rand.NewPCG(uint64(layer), uint64(files)))
	words := vocabulary(r)
	f, err := os.CreateTemp(blobs, "layer")
	if err != nil {
		return d, "", err
	}
	packed, plain := sha256.New(), sha256.New()
	z := pgzip.NewWriter(io.MultiWriter(f, packed))
	t := tar.NewWriter(io.MultiWriter(z, plain))
	for i := range files {
		h := &tar.Header{Name: fmt.Sprintf("srv/l%d/d%d/f%d", layer, i/50, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size), ModTime: time.Unix(1e9, 0)}
		err = errors.Join(err, t.WriteHeader(h))
		for left := size; left > 0 && err == nil; {
			piece := prose(r, words, min(left, 1<<20))
			left -= len(piece)
			_, err = t.Write(piece)
		}
	}
	if err = errors.Join(err, t.Close(), z.Close()); err != nil {
		return d, "", errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return d, "", err
	}
	d = ispec.Descriptor{MediaType: ispec.MediaTypeImageLayerGzip, Digest: digest.NewDigest(digest.SHA256, packed), Size: info.Size()}
	return d, digest.NewDigest(digest.SHA256, plain), os.Rename(f.Name(), filepath.Join(blobs, d.Digest.Encoded()))
}
