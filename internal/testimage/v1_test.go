package testimage

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/compression"

	"github.com/kimg/kimg/internal/testenv"
)

func TestV1IsReproducible(t *testing.T) {
	o := V1Options{Seed: 4, Layers: 3, Empty: 2, Signed: true}
	a, b := NewV1(o), NewV1(o)
	o.Seed++
	c := NewV1(o)
	if !bytes.Equal(a.Manifest, b.Manifest) || bytes.Equal(a.Manifest, c.Manifest) {
		t.Error("the seed does not decide the image")
	}
	if len(a.History) != 5 || len(a.Layers) != 3 || len(a.Blobs) != 4 {
		t.Errorf("%d entries, %d layers, %d blobs", len(a.History), len(a.Layers), len(a.Blobs))
	}
}

// The payload is found again, has the digest other programs compute, and the signature is that of its key.
func TestSignV1(t *testing.T) {
	img := NewV1(V1Options{Seed: 9, Signed: true})
	if d, err := manifest.Digest(img.Manifest); err != nil || d.String() != Digest(img.Payload) {
		t.Errorf("digest %s, %v", d, err)
	}
	var doc struct {
		Signatures []signature `json:"signatures"`
	}
	if err := json.Unmarshal(img.Manifest, &doc); err != nil || len(doc.Signatures) != 1 {
		t.Fatal(err)
	}
	s := doc.Signatures[0]
	raw, err := base64.RawURLEncoding.DecodeString(s.Signature)
	if err != nil || len(raw) != 64 {
		t.Fatal(err, len(raw))
	}
	sum := sha256.Sum256([]byte(s.Protected + "." + base64.RawURLEncoding.EncodeToString(img.Payload)))
	if !ecdsa.Verify(&Key(9).PublicKey, sum[:], new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])) {
		t.Error("the signature is wrong")
	}
	if id := s.Header.JWK["kid"]; len(strings.Split(id, ":")) != 12 {
		t.Errorf("key id %s", id)
	}
}

// What the constants hold is what they are said to hold.
func TestLayers(t *testing.T) {
	if d := Digest(emptyBlob); d != "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4" {
		t.Error(d)
	}
	for _, c := range []string{"plain", "gzip", "bzip2", "xz"} {
		l := NewLayer(1, c, 0)
		r, _, err := compression.AutoDecompress(bytes.NewReader(l.Blob))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, l.Tar) {
			t.Errorf("%s: %d bytes, %v", c, len(data), err)
		}
	}
	if l := NewLayer(1, "gzip", 3<<20); len(l.Blob) < 1<<20 || len(l.Blob) > 2<<20 {
		t.Errorf("a large layer of %d bytes has %d", len(l.Tar), len(l.Blob))
	}
}

func TestPeersReadV1(t *testing.T) {
	testenv.Need(t, "skopeo")
	base := NewLayer(5, "gzip", 0)
	for name, o := range map[string]V1Options{
		"signed": {Layers: 2, Empty: 3, Signed: true}, "unsigned": {Layers: 2, Empty: 1},
		"old": {Old: true, DockerVersion: "1.7.0", Layers: 2}, "repeat": {Base: []ImageLayer{base, base}},
		"compressions": {Layers: 4, Compression: []string{"plain", "gzip", "bzip2", "xz"}, DockerVersion: "-"},
	} {
		dir := t.TempDir()
		if err := NewV1(o).WriteDir(dir); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("skopeo", "--insecure-policy", "copy", "-q", "-f", "v2s2", "dir:"+dir, "dir:"+filepath.Join(t.TempDir(), "out")).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
