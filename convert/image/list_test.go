package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

// putList puts the index that writeIndex wrote into the store, with all of its images or only the first n; the blobs are kept or not.
func putList(t *testing.T, st *store.Store, dir string, n int, keep bool) (index []byte) {
	t.Helper()
	var layout ispec.Index
	read := func(d digest.Digest) []byte {
		data, err := os.ReadFile(layoutBlob(dir, string(d)))
		check(t, err)
		return data
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	check(t, err)
	check(t, json.Unmarshal(data, &layout))
	index = read(layout.Manifests[0].Digest)
	var v ispec.Index
	check(t, json.Unmarshal(index, &v))
	rec := store.ListRecord{Names: []string{"list"}, Index: index, Instances: map[digest.Digest]string{}, Data: map[digest.Digest][]byte{}}
	err = st.Change(t.Context(), "test", func(ctx context.Context, tx *store.Tx) error {
		for i, d := range v.Manifests {
			var m ispec.Manifest
			check(t, json.Unmarshal(read(d.Digest), &m))
			switch {
			case d.Platform.OS == "unknown":
				for _, d := range append(m.Layers, m.Config, d) {
					rec.Data[d.Digest] = read(d.Digest)
				}
				continue
			case i >= n:
				continue
			}
			top := ""
			for _, l := range m.Layers {
				tar, err := gzip.NewReader(bytes.NewReader(read(l.Digest)))
				check(t, err)
				layer, err := tx.StageLayer(ctx, top, store.TarSource(tar))
				check(t, err)
				if top = layer.ID; keep {
					spool, err := tx.SpoolBlob()
					check(t, err)
					_, err = spool.Write(read(l.Digest))
					check(t, err)
					check(t, tx.KeepBlob(layer, spool, l.Digest))
				}
			}
			put := store.ImageRecord{Config: read(m.Config.Digest), Manifest: read(d.Digest), TopLayer: top}
			tx.PutImage(put)
			rec.Instances[d.Digest] = put.ID()
		}
		return tx.PutList(ctx, rec)
	})
	check(t, err)
	return index
}

// TestListOfTheStore: with its blobs kept, an index leaves the store byte for byte as it came, attestations included (X9, X18).
func TestListOfTheStore(t *testing.T) {
	dir := t.TempDir()
	writeIndex(t, dir+"/in", false)
	for _, c := range []struct {
		name   string
		images int
		keep   bool
		same   bool // the index comes out as it came
		left   int  // images of what comes out
	}{{"kept", 2, true, true, 2}, {"not kept", 2, false, false, 2}, {"part", 1, true, false, 1}} {
		t.Run(c.name, func(t *testing.T) {
			st, out := newStore(t), t.TempDir()
			index := putList(t, st, dir+"/in", c.images, c.keep)
			o := Options{Store: func() (*store.Store, error) { return st, nil }, Proof: true}
			for _, dst := range []string{"oci:" + out + "/oci:x", "oci-archive:" + out + "/oa:x", "dir:" + out + "/dir"} {
				r := converter(t, o).must(t, "list", dst)
				if v := validate(t, dst, false); !v.Valid() || v.Digest != r.NewDigest || len(v.Images) != c.left || (r.NewDigest == digest.FromBytes(index)) != c.same {
					t.Errorf("%s: %+v\n%+v", dst, r, v)
				}
			}
			if v, err := converter(t, o).Validate(t.Context(), ref(t, "list"), false); err != nil || !v.Valid() || len(v.Images) != c.left {
				t.Errorf("%+v, %v", v, err)
			}
			// Where one image only can be, it is that for this machine; elsewhere the one that was asked for.
			r, err := converter(t, o).try(t, "list", "docker-archive:"+out+"/da:localhost/a:1")
			if here := runtime.GOARCH == "amd64" || c.images == 2 && runtime.GOARCH == "arm64"; here != (err == nil) || here && len(r.Images) != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			o.Platform = &ispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v9"}
			if r, err := converter(t, o).try(t, "list", "dir:"+out+"/arm"); (err == nil) != (c.images == 2) || err != nil && kimg.ClassOf(err) != kimg.ErrUnsupported {
				t.Errorf("%+v, %v", r, err)
			}
			if c.keep && c.images == 2 {
				manifest, err := os.ReadFile(out + "/arm/manifest.json")
				check(t, err)
				if want := testimage.NewImage(1, testimage.ImageOptions{Layers: 2, Gzip: true, Change: func(c map[string]any) { c["architecture"] = "arm64" }}); !bytes.Equal(manifest, want.Manifest) {
					t.Errorf("%s", manifest)
				}
			}
		})
	}
}
