package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

// writeIndex writes a layout with an index of two images, that of arm64 a Docker image if mixed, and an attestation of the
// first, whose manifest is Docker's as well then. It returns the digests of the images.
func writeIndex(t *testing.T, dir string, mixed bool) []string {
	t.Helper()
	platforms := []string{"amd64", "arm64"}
	var entries []any
	var digests []string
	for i, arch := range platforms {
		img := testimage.NewImage(uint64(i), testimage.ImageOptions{
			Layers: 2, Gzip: true, Docker: mixed && i == 1, Change: func(c map[string]any) { c["architecture"] = arch },
		})
		check(t, img.WriteOCI(dir, arch))
		digests = append(digests, testimage.Digest(img.Manifest))
		entries = append(entries, map[string]any{
			"mediaType": img.ManifestType, "digest": digests[i], "size": len(img.Manifest),
			"platform": map[string]string{"os": "linux", "architecture": arch}, "annotations": map[string]string{"note": arch},
		})
	}
	put := func(data []byte) (string, int) {
		d := testimage.Digest(data)
		check(t, os.WriteFile(layoutBlob(dir, d), data, 0o644))
		return d, len(data)
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		check(t, err)
		return data
	}
	statement, size := put([]byte(`{"_type":"https://in-toto.io/Statement/v0.1"}`))
	config, configSize := put([]byte(`{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":["` + statement + `"]}}`))
	manifestType := ispec.MediaTypeImageManifest
	if mixed {
		manifestType = docker.MediaTypeManifest
	}
	attestation, attestationSize := put(encode(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": map[string]any{"mediaType": ispec.MediaTypeImageConfig, "digest": config, "size": configSize},
		"layers": []any{map[string]any{"mediaType": "application/vnd.in-toto+json", "digest": statement, "size": size}},
	}))
	entries = append(entries, map[string]any{
		"mediaType": manifestType, "digest": attestation, "size": attestationSize,
		"platform":    map[string]string{"os": "unknown", "architecture": "unknown"},
		"annotations": map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digests[0]},
	})
	index := encode(map[string]any{"schemaVersion": 2, "mediaType": ispec.MediaTypeImageIndex, "manifests": entries})
	d, n := put(index)
	check(t, os.WriteFile(filepath.Join(dir, "index.json"), encode(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": ispec.MediaTypeImageIndex, "digest": d, "size": n, "annotations": map[string]string{ispec.AnnotationRefName: "all"},
	}}}), 0o644))
	return digests
}

func validate(t *testing.T, text string, fast bool) Validation {
	t.Helper()
	v, err := converter(t, Options{}).Validate(context.Background(), ref(t, text), fast)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// An index that need not change is copied as it is, with its attestation, to every place that can hold one.
func TestIndexStaysAsItIs(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", false)
	c := converter(t, Options{Proof: true})
	for _, dst := range []string{"oci:" + dir + "/oci:x", "oci-archive:" + dir + "/oa:x", "dir:" + dir + "/dir"} {
		r := c.must(t, "oci:"+dir+"/in:all", dst)
		if r.NewDigest != r.OldDigest || len(r.Images) != 2 || r.Images[1].Platform != "linux/arm64" || r.Images[0].Proof == nil || len(r.Report) != 0 {
			t.Errorf("%s: %+v", dst, r)
		}
		for _, fast := range []bool{true, false} {
			if v := validate(t, dst, fast); !v.Valid() || v.Digest != r.NewDigest || len(v.Images) != 2 {
				t.Errorf("%s: %+v", dst, v)
			}
		}
		back := c.must(t, dst, "dir:"+t.TempDir())
		if back.NewDigest != r.OldDigest {
			t.Errorf("%s and back: %s, before %s", dst, back.NewDigest, r.OldDigest)
		}
	}
}

// Images become what the index becomes. Docker's list has no place for an attestation, OCI's index keeps it.
func TestIndexIsConverted(t *testing.T) {
	dir := t.TempDir()
	digests := writeIndex(t, dir+"/in", true)
	r := converter(t, Options{Format: convert.DockerV2S2}).must(t, "oci:"+dir+"/in:all", "dir:"+dir+"/list")
	if r.To != convert.DockerV2S2 || len(r.Images) != 2 || r.Images[0].To != convert.DockerV2S2 || string(r.Images[1].OldDigest) != digests[1] {
		t.Errorf("%+v", r)
	}
	if !slices.ContainsFunc(r.Report, func(c convert.Change) bool { return c.Kind == convert.Lost && c.Path == "manifests[2]" }) {
		t.Errorf("the attestation is not in the report: %v", r.Report)
	}
	if v := validate(t, "dir:"+dir+"/list", false); !v.Valid() || v.Format != convert.DockerV2S2 {
		t.Errorf("%+v", v)
	}
	before := files(t, dir)
	if _, err := converter(t, Options{Format: convert.DockerV2S2, FailOnLoss: true}).try(t, "oci:"+dir+"/in:all", "dir:"+dir+"/lossless"); !errors.Is(err, kimg.ErrUnsupported) {
		t.Errorf("a loss: %v", err)
	}
	same(t, "the destination", before, files(t, dir))
	back := converter(t, Options{}).must(t, "dir:"+dir+"/list", "oci:"+dir+"/back")
	if back.To != convert.OCI || len(back.Images) != 2 {
		t.Errorf("%+v", back)
	}
	if v := validate(t, "oci:"+dir+"/back", false); !v.Valid() {
		t.Errorf("%+v", v)
	}
	mixed := converter(t, Options{Format: convert.OCI}).must(t, "oci:"+dir+"/in:all", "oci:"+dir+"/mixed:x")
	if string(mixed.Images[0].NewDigest) != digests[0] || string(mixed.Images[1].NewDigest) == digests[1] {
		t.Errorf("%+v", mixed)
	}
	if v := validate(t, "oci:"+dir+"/mixed:x", false); !v.Valid() {
		t.Errorf("%+v", v)
	}
}

// What holds one image takes one, when it is told which.
func TestOneOfAnIndex(t *testing.T) {
	dir := t.TempDir()
	st := newStore(t)
	digests := writeIndex(t, dir+"/in", false)
	open := func() (*storeType, error) { return st, nil }
	targets := map[string]Options{
		"docker-archive:" + dir + "/da": {}, "x": {}, "dir:" + dir + "/v1": {Format: convert.DockerV2S1}, "dir:" + dir + "/one": {},
	}
	before := files(t, dir)
	for dst, o := range targets {
		if o.Store = open; dst == "dir:"+dir+"/one" {
			continue
		}
		if _, err := converter(t, o).try(t, "oci:"+dir+"/in:all", dst); !errors.Is(err, kimg.ErrUnsupported) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	same(t, "the destination", before, files(t, dir))
	for dst, o := range targets {
		o.Store, o.Platform = open, &ispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
		if r := converter(t, o).must(t, "oci:"+dir+"/in:all", dst); string(r.OldDigest) != digests[1] {
			t.Errorf("%s: %+v", dst, r)
		}
	}
	o := Options{Platform: &ispec.Platform{OS: "linux", Architecture: "riscv64"}}
	if _, err := converter(t, o).try(t, "oci:"+dir+"/in:all", "dir:"+dir+"/none"); !errors.Is(err, kimg.ErrNotFound) {
		t.Errorf("no such platform: %v", err)
	}
}

// Damage anywhere below an index is found, and nothing is written.
func TestIndexDamage(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", false)
	blobs, err := os.ReadDir(dir + "/in/blobs/sha256")
	check(t, err)
	for _, b := range blobs {
		for name, damage := range damages {
			file := filepath.Join(dir, "in/blobs/sha256", b.Name())
			data, err := os.ReadFile(file)
			check(t, err)
			check(t, os.WriteFile(file, damage(data, []byte("{}")), 0o644))
			before := files(t, dir)
			if _, err := converter(t, Options{}).try(t, "oci:"+dir+"/in:all", "dir:"+dir+"/out"); !errors.Is(err, kimg.ErrIntegrity) {
				t.Errorf("%s of %s: %v", name, b.Name(), err)
			}
			if v := validate(t, "oci:"+dir+"/in:all", false); v.Valid() {
				t.Errorf("%s of %s: valid", name, b.Name())
			}
			same(t, name, before, files(t, dir))
			check(t, os.WriteFile(file, data, 0o644))
		}
	}
}

// What is no image comes into no store and becomes no other format; its documents are shown.
func TestNoImage(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	img := testimage.NewImage(1, testimage.ImageOptions{})
	img.Manifest = []byte(strings.Replace(string(img.Manifest), ispec.MediaTypeImageConfig, "application/vnd.cncf.helm.config.v1+json", 1))
	check(t, img.WriteOCI(dir, "a"))
	before := files(t, dir)
	for _, o := range []Options{{}, {Keep: true}} {
		o.Store = func() (*store.Store, error) { return s, nil }
		for _, dst := range []string{"containers-storage:x", "docker-archive:" + dir + "/x.tar", "dir:" + dir + "/x"} {
			if o.Keep && dst == "dir:"+dir+"/x" {
				continue // it is copied
			}
			if _, err := converter(t, o).try(t, "oci:"+dir+":a", dst); kimg.ClassOf(err) != kimg.ErrUnsupported {
				t.Errorf("%s: %v", dst, err)
			}
		}
	}
	same(t, "the layout", before, files(t, dir))
	if all, err := s.Images(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("%d images, %v", len(all), err)
	}
	d, err := converter(t, Options{}).Inspect(t.Context(), ref(t, "oci:"+dir+":a"))
	if err != nil || string(d.Manifest) != string(img.Manifest) || d.Config != nil || len(d.Layers) != 1 || d.Platform != "" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, fast := range []bool{true, false} {
		if v := validate(t, "oci:"+dir+":a", fast); !v.Valid() || kimg.ClassOf(v.NoImage) != kimg.ErrUnsupported || v.ConfigDigest == "" || v.Size != int64(len(img.Layers[0].Blob)) {
			t.Errorf("%+v", v)
		}
	}
}
