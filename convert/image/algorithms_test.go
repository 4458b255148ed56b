package image

import (
	_ "crypto/sha512"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

// writeWith writes a layout with an index of three images, the last of another system, whose manifests, configurations and layers are named
// by digests of these algorithms. It returns the descriptors of the images.
func writeWith(t *testing.T, dir string, manifests, configs, layers digest.Algorithm) []ispec.Descriptor {
	t.Helper()
	put := func(a digest.Algorithm, v any) ispec.Descriptor {
		t.Helper()
		data, ok := v.([]byte)
		if !ok {
			var err error
			data, err = json.Marshal(v)
			check(t, err)
		}
		d := a.FromBytes(data)
		path := filepath.Join(dir, "blobs", a.String(), d.Encoded())
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, data, 0o644))
		return ispec.Descriptor{Digest: d, Size: int64(len(data))}
	}
	top := ispec.Index{MediaType: ispec.MediaTypeImageIndex}
	top.SchemaVersion = 2
	all := top
	for i, p := range []ispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "windows", Architecture: "amd64"}} {
		img := testimage.NewImage(uint64(i), testimage.ImageOptions{Layers: 1, Gzip: true, Change: func(c map[string]any) { c["os"], c["architecture"] = p.OS, p.Architecture }})
		var m ispec.Manifest
		check(t, json.Unmarshal(img.Manifest, &m))
		config, layer := put(configs, img.Config), put(layers, img.Layers[0].Blob)
		m.Config.Digest, m.Layers[0].Digest = config.Digest, layer.Digest
		d := put(manifests, m)
		d.MediaType, d.Platform = ispec.MediaTypeImageManifest, &p
		all.Manifests = append(all.Manifests, d)
	}
	one := put(digest.SHA256, all)
	one.MediaType, one.Annotations = ispec.MediaTypeImageIndex, map[string]string{ispec.AnnotationRefName: "all"}
	top.Manifests = append(top.Manifests, one)
	data, err := json.Marshal(top)
	check(t, err)
	check(t, os.WriteFile(dir+"/index.json", data, 0o644))
	check(t, os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	return all.Manifests
}

// Digests need not be of sha256: an index goes everywhere as it is, with all that it names under the digests it names it by.
func TestOtherAlgorithms(t *testing.T) {
	for _, c := range []struct{ manifests, configs, layers digest.Algorithm }{
		{digest.SHA512, digest.SHA256, digest.SHA256}, {digest.SHA256, digest.SHA512, digest.SHA256}, {digest.SHA256, digest.SHA256, digest.SHA384},
		{digest.SHA512, digest.SHA384, digest.SHA512},
	} {
		dir := t.TempDir()
		images := writeWith(t, dir+"/in", c.manifests, c.configs, c.layers)
		src := "oci:" + dir + "/in:all"
		want := validate(t, src, false)
		valid := func(dst string, r Result) {
			t.Helper()
			v := validate(t, dst, false)
			if !v.Valid() || v.Digest != want.Digest || r.NewDigest != want.Digest || len(r.Images) == 0 {
				t.Fatalf("%v: %s: %+v\n%+v", c, dst, v, r)
			}
			for i, d := range images {
				if v.Images[i].Digest != d.Digest || v.Images[i].ConfigDigest.Algorithm() != c.configs {
					t.Errorf("%v: %s: %+v", c, dst, v.Images[i])
				}
			}
		}
		for _, o := range []Options{{}, {Keep: true, PreserveDigests: true}} {
			for _, dst := range []string{"oci:" + t.TempDir() + ":x", "oci-archive:" + t.TempDir() + "/x:x", "dir:" + t.TempDir()} {
				valid(dst, converter(t, o).must(t, src, dst))
			}
		}
		old := "dir:" + t.TempDir()
		converter(t, Options{Format: convert.DockerV2S2}).must(t, src, old)
		if v := validate(t, old, false); !v.Valid() || v.Images[0].ConfigDigest.Algorithm() != digest.SHA256 {
			t.Errorf("%v: %+v", c, v)
		}

		o := on(newStore(t))
		o.Keep, o.KeepBlobs = true, true
		before := converter(t, o)
		if c.configs != digest.SHA256 {
			for _, one := range []Options{o, {Store: o.Store, Platform: images[0].Platform}, {Store: o.Store, Keep: true, Platform: images[0].Platform}} {
				_, err := converter(t, one).try(t, src, "in")
				if kimg.ClassOf(err) != kimg.ErrUnsupported || !strings.Contains(err.Error(), "v2s2") {
					t.Errorf("%v: %v", c, err)
				}
			}
			st, err := o.Store()
			check(t, err)
			if all, err := st.Images(t.Context()); err != nil || len(all) > 0 {
				t.Errorf("%v: %d images, %v", c, len(all), err)
			}
			converter(t, Options{Store: o.Store, Format: convert.DockerV2S2, Platform: images[0].Platform}).must(t, src, "in")
			if v, err := before.Validate(t.Context(), InStore("in"), false); err != nil || !v.Valid() {
				t.Errorf("%v: %+v, %v", c, v, err)
			}
			continue
		}
		r := before.must(t, src, "in")
		if r.NewDigest != want.Digest || r.Images[0].NewDigest != images[0].Digest || r.Images[0].OldDigest != images[0].Digest {
			t.Errorf("%v: %+v", c, r)
		}
		back := "dir:" + t.TempDir()
		valid(back, converter(t, o).must(t, "in", back))
		data, saved := save(t, o, SaveOptions{PreserveDigests: true}, "in")
		path := t.TempDir() + "/saved.tar"
		check(t, os.WriteFile(path, data, 0o644))
		valid("oci-archive:"+path, saved[0].Result)
		one := converter(t, Options{Platform: images[0].Platform, Store: o.Store}).must(t, "in", "docker-archive:"+t.TempDir()+"/x")
		if !slices.Equal(one.DiffIDs, want.Images[0].DiffIDs) {
			t.Errorf("%v: %+v", c, one)
		}
		again := on(newStore(t))
		again.KeepBlobs = true
		load(t, again, LoadOptions{Strict: true}, data)
	}
}
