package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store/transfer"
)

// Between any two places the image stays the same: diff IDs, file tree, and what it is when it comes back.
func TestEveryPair(t *testing.T) {
	st := newStore(t)
	dir := t.TempDir()
	v1 := testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 4, Empty: 2, Signed: true, Compression: []string{"gzip", "plain", "xz", "bzip2"}})
	check(t, v1.WriteDir(dir+"/v1"))
	check(t, testimage.NewImage(2, testimage.ImageOptions{Layers: 2, Gzip: true}).WriteOCI(dir+"/oci", "a"))
	check(t, testimage.NewImage(3, testimage.ImageOptions{Layers: 2, Docker: true}).WriteDir(dir+"/v2"))
	for i, src := range []string{"dir:" + dir + "/v1", "oci:" + dir + "/oci:a", "dir:" + dir + "/v2"} {
		c := converter(t, Options{Proof: true, Store: func() (*storeType, error) { return st, nil }})
		var first Result
		for _, kind := range []string{"dir:%s/d%d", "oci:%s/o%d:x", "oci-archive:%s/oa%d:x", "docker-archive:%s/da%d:x:1", "containers-storage:x%[2]d"} {
			there := fmt.Sprintf(kind, dir, i)
			r := c.must(t, src, there)
			if first.DiffIDs == nil {
				first = r
			}
			if !slices.Equal(r.DiffIDs, first.DiffIDs) || *r.Proof != *first.Proof || r.Proof.Before != r.Proof.After {
				t.Errorf("%s -> %s: %v, %v", src, there, r.DiffIDs, r.Proof)
			}
			if r.ConfigDigest != first.ConfigDigest {
				t.Errorf("%s -> %s: configuration %s, before %s", src, there, r.ConfigDigest, first.ConfigDigest)
			}
			for j, back := range []string{"dir:%s/d%d-%d", "oci:%s/back:x%d-%d", "oci-archive:%s/oa%d-%d:x", "docker-archive:%s/da%d-%d", "containers-storage:x%[2]d-%[3]d"} {
				to := fmt.Sprintf(back, dir, i, 10*j+len(kind))
				again := converter(t, c.o).must(t, there, to)
				if !slices.Equal(again.DiffIDs, first.DiffIDs) || again.Proof.After != first.Proof.Before || again.ConfigDigest != first.ConfigDigest {
					t.Errorf("%s -> %s -> %s: %+v", src, there, to, again)
				}
				v, err := c.Validate(context.Background(), ref(t, to), false)
				// A store keeps the manifest it had first for a configuration, a docker-archive: none.
				keeps := j != 3 && j != 4
				if err != nil || !v.Valid() || keeps && v.Digest != again.NewDigest {
					t.Errorf("%s: %+v, %v", to, v, err)
				}
			}
		}
	}
}

// Into schema 1 and back.
func TestSchema1IsWritten(t *testing.T) {
	dir := t.TempDir()
	img := testimage.NewImage(2, testimage.ImageOptions{Layers: 2, Gzip: true, Change: func(config map[string]any) {
		config["history"] = append(config["history"].([]any), map[string]any{"created_by": "nothing", "empty_layer": true})
	}})
	check(t, img.WriteOCI(dir+"/oci", "a"))
	c := converter(t, Options{Format: convert.DockerV2S1})
	r := c.must(t, "oci:"+dir+"/oci:a", "dir:"+dir+"/v1")
	if r.To != convert.DockerV2S1 || r.ConfigDigest != "" || len(r.DiffIDs) != 2 {
		t.Errorf("%+v", r)
	}
	_, empty := convert.EmptyLayer()
	if _, err := os.Stat(filepath.Join(dir, "v1", empty.Digest.Encoded())); err != nil {
		t.Error("the empty layer is missing:", err)
	}
	back := converter(t, Options{}).must(t, "dir:"+dir+"/v1", "oci:"+dir+"/back")
	if !slices.Equal(back.DiffIDs, r.DiffIDs) {
		t.Errorf("%v, before %v", back.DiffIDs, r.DiffIDs)
	}
}

// The blobs of throwaway entries may be missing, and are not written.
func TestThrowawayBlobsAreNotTouched(t *testing.T) {
	dir := t.TempDir()
	v1 := testimage.NewV1(testimage.V1Options{Seed: 4, Layers: 2, Empty: 3})
	for _, e := range v1.History {
		if e.Empty {
			delete(v1.Blobs, e.Blob)
		}
	}
	check(t, v1.WriteDir(dir+"/v1"))
	c := converter(t, Options{})
	r := c.must(t, "dir:"+dir+"/v1", "oci:"+dir+"/oci")
	entries, err := os.ReadDir(dir + "/oci/blobs/sha256")
	check(t, err)
	if len(r.Layers) != 2 || len(entries) != 2+2 { // layers, configuration, manifest
		t.Errorf("%d layers, %d blobs", len(r.Layers), len(entries))
	}
	if v, err := c.Validate(context.Background(), ref(t, "dir:"+dir+"/v1"), false); err != nil || !v.Valid() {
		t.Errorf("%+v, %v", v, err)
	}
}

// By content, an empty layer that no flag says is empty goes: it is neither in the image nor at the destination.
func TestEmptyLayersByContent(t *testing.T) {
	dir := t.TempDir()
	st := newStore(t)
	empty, said := convert.EmptyLayer()
	base := []testimage.ImageLayer{
		testimage.NewLayer(1, "gzip", 0), {Digest: said.Digest.String(), DiffID: said.DiffID.String(), Blob: empty}, testimage.NewLayer(2, "gzip", 0),
	}
	check(t, testimage.NewV1(testimage.V1Options{Seed: 1, Base: base, Old: true}).WriteDir(dir+"/v1"))
	o := Options{Store: func() (*storeType, error) { return st, nil }, Proof: true}
	for i, want := range []int{3, 2} {
		o.Convert.EmptyLayers = []convert.Mode{convert.EmptyFlag, convert.EmptyContent}[i]
		for _, dst := range []string{fmt.Sprintf("oci:%s/oci%d", dir, i), fmt.Sprintf("dir:%s/dir%d", dir, i), fmt.Sprintf("x%d", i)} {
			r := converter(t, o).must(t, "dir:"+dir+"/v1", dst)
			if len(r.Layers) != want || len(r.DiffIDs) != want {
				t.Errorf("%s: %d layers, want %d", dst, len(r.Layers), want)
			}
			if v, err := converter(t, o).Validate(context.Background(), ref(t, dst), false); err != nil || !v.Valid() || len(v.DiffIDs) != want {
				t.Errorf("%s: %+v, %v", dst, v, err)
			}
		}
	}
	if _, err := os.Stat(layoutBlob(dir+"/oci1", said.Digest.String())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty layer was written: %v", err)
	}
}

// What images share is read and written once, and read again when somebody has changed it meanwhile.
func TestSharedBlobsAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	base := []testimage.ImageLayer{testimage.NewLayer(1, "gzip", 0), testimage.NewLayer(2, "xz", 0)}
	for i, name := range []string{"a", "b", "c"} {
		img := testimage.NewV1(testimage.V1Options{Seed: uint64(i), Base: base, Layers: 1})
		if name == "b" {
			delete(img.Blobs, base[0].Digest) // reading it would fail
			delete(img.Blobs, base[1].Digest)
		}
		check(t, img.WriteDir(filepath.Join(dir, name)))
	}
	c := converter(t, Options{})
	r := c.must(t, "dir:"+dir+"/a", "oci:"+dir+"/oci:a")
	c.must(t, "dir:"+dir+"/b", "oci:"+dir+"/oci:b")
	// What is known of a blob is not what is there.
	check(t, os.WriteFile(layoutBlob(dir+"/oci", base[0].Digest), base[0].Blob[1:], 0o644))
	if _, err := c.try(t, "dir:"+dir+"/b", "oci:"+dir+"/oci:b2"); !errors.Is(err, kimg.ErrNotFound) {
		t.Errorf("a damaged blob was taken for good: %v", err)
	}
	flipped := append([]byte{}, base[0].Blob...)
	flipped[20] ^= 1
	check(t, os.WriteFile(layoutBlob(dir+"/oci", base[0].Digest), flipped, 0o644))
	c.must(t, "dir:"+dir+"/c", "oci:"+dir+"/oci:c")
	if v, err := c.Validate(context.Background(), ref(t, "oci:"+dir+"/oci:c"), false); err != nil || !v.Valid() {
		t.Errorf("%+v, %v", v, err)
	}
	if got := r.Layers[1]; got.Compression != compression.Gzip || !got.Recompressed {
		t.Errorf("the xz layer is %+v", got)
	}
}

// The result does not depend on how many things happen at the same time, nor on what was learnt before.
func TestParallelAndReproducible(t *testing.T) {
	dir := t.TempDir()
	base := []testimage.ImageLayer{testimage.NewLayer(1, "gzip", 0), testimage.NewLayer(2, "bzip2", 0), testimage.NewLayer(3, "plain", 0)}
	const n = 8
	for i := range n {
		check(t, testimage.NewV1(testimage.V1Options{Seed: uint64(i), Base: base, Layers: 2}).WriteDir(fmt.Sprintf("%s/%d", dir, i)))
	}
	c, one := converter(t, Options{Jobs: 4}), converter(t, Options{Jobs: 1})
	var wg sync.WaitGroup
	got := make([]Result, n)
	for i := range n {
		wg.Go(func() {
			var err error
			src, dst := fmt.Sprintf("dir:%s/%d", dir, i), fmt.Sprintf("oci:%s/many:%d", dir, i)
			if got[i], err = c.try(t, src, dst); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		want := one.must(t, fmt.Sprintf("dir:%s/%d", dir, i), fmt.Sprintf("oci:%s/one:%d", dir, i))
		if got[i].NewDigest != want.NewDigest {
			t.Errorf("image %d is %s and %s", i, got[i].NewDigest, want.NewDigest)
		}
		if v, err := one.Validate(context.Background(), ref(t, fmt.Sprintf("oci:%s/many:%d", dir, i)), false); err != nil || !v.Valid() {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// With FailOnLoss nothing is written; without, the loss is reported.
func TestFailOnLoss(t *testing.T) {
	dir := t.TempDir()
	img := testimage.NewImage(2, testimage.ImageOptions{Gzip: true})
	img.Manifest = edit(t, img.Manifest, func(m map[string]any) { m["annotations"] = map[string]any{"a": "1"} })
	check(t, img.WriteOCI(dir+"/oci", "a"))
	check(t, os.Mkdir(dir+"/new", 0o755))
	before := files(t, dir)
	_, err := converter(t, Options{FailOnLoss: true, Format: convert.DockerV2S2}).try(t, "oci:"+dir+"/oci:a", "dir:"+dir+"/new/v2")
	if !errors.Is(err, kimg.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	same(t, "the destination", before, files(t, dir))
	r := converter(t, Options{Format: convert.DockerV2S2}).must(t, "oci:"+dir+"/oci:a", "dir:"+dir+"/new/v2")
	if !slices.ContainsFunc(r.Report, func(c convert.Change) bool { return c.Kind == convert.Lost && c.Path == "annotations.a" }) {
		t.Errorf("report: %v", r.Report)
	}
}

// Signatures beside the manifest have no place at a destination.
func TestSignaturesAreReported(t *testing.T) {
	dir := t.TempDir()
	check(t, testimage.NewImage(2, testimage.ImageOptions{Docker: true}).WriteDir(dir+"/v2"))
	check(t, os.WriteFile(dir+"/v2/signature-1", []byte("signature"), 0o644))
	before := files(t, dir)
	if _, err := converter(t, Options{FailOnLoss: true}).try(t, "dir:"+dir+"/v2", "dir:"+dir+"/x"); !errors.Is(err, kimg.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	same(t, "the destination", before, files(t, dir))
	if r := converter(t, Options{}).must(t, "dir:"+dir+"/v2", "dir:"+dir+"/x"); len(r.Report) != 1 || r.Report[0].Path != "signatures" {
		t.Errorf("%v", r.Report)
	}
}

// A conversion that is interrupted leaves nothing, and does not wait for what it was reading.
func TestInterrupt(t *testing.T) {
	st := newStore(t)
	dir := t.TempDir()
	check(t, testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 3, LayerBytes: 2 << 20, Compression: []string{"gzip", "plain"}}).WriteDir(dir+"/v1"))
	for _, dst := range []string{"oci:" + dir + "/oci:a", "dir:" + dir + "/dir", "docker-archive:" + dir + "/da:x", "x"} {
		for _, after := range []int64{1, 100 << 10, 3 << 20} {
			ctx, cancel := context.WithCancel(context.Background())
			n, of := int64(0), map[digest.Digest]int64{}
			var mu sync.Mutex
			before := files(t, dir)
			c := converter(t, Options{Store: func() (*storeType, error) { return st, nil }, Progress: func(_ string, e transfer.Event) {
				mu.Lock()
				defer mu.Unlock()
				n += e.Bytes - of[e.Digest]
				if of[e.Digest] = e.Bytes; n >= after {
					cancel()
				}
			}})
			if _, err := c.Convert(ctx, ref(t, "dir:"+dir+"/v1"), ref(t, dst)); !errors.Is(err, kimg.ErrInterrupted) {
				t.Errorf("%s after %d bytes: class %s: %v", dst, after, kimg.ClassOf(err), err)
			}
			same(t, dst, before, files(t, dir))
			cancel()
		}
	}
	if layers, err := st.Storage().Layers(); err != nil || len(layers) > 0 {
		t.Errorf("the store has %d layers, %v", len(layers), err)
	}
}

func TestVerifyJWS(t *testing.T) {
	dir := t.TempDir()
	signed := testimage.NewV1(testimage.V1Options{Seed: 1, Signed: true})
	check(t, signed.WriteDir(dir+"/signed"))
	check(t, testimage.NewV1(testimage.V1Options{Seed: 1}).WriteDir(dir+"/unsigned"))
	forged := signed
	forged.Manifest = bytes.Replace(signed.Manifest, []byte(`"signature": "`), []byte(`"signature": "AAAA`), 1)
	check(t, forged.WriteDir(dir+"/forged"))
	c := converter(t, Options{VerifyJWS: true})
	if r := c.must(t, "dir:"+dir+"/signed", "oci:"+dir+"/oci:a"); len(r.KeyIDs) != 1 {
		t.Errorf("keys %v", r.KeyIDs)
	}
	if _, err := c.try(t, "dir:"+dir+"/unsigned", "oci:"+dir+"/oci:b"); !errors.Is(err, kimg.ErrInvalid) {
		t.Errorf("unsigned: %v", err)
	}
	if _, err := c.try(t, "dir:"+dir+"/forged", "oci:"+dir+"/oci:c"); err == nil {
		t.Error("a forged signature was accepted")
	}
	converter(t, Options{}).must(t, "dir:"+dir+"/forged", "oci:"+dir+"/oci:c") // nobody asked
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	st := newStore(t)
	check(t, testimage.NewImage(2, testimage.ImageOptions{}).WriteOCI(dir+"/oci", "a"))
	open := func() (*storeType, error) { return st, nil }
	c := converter(t, Options{Sys: policyFile(t, "reject"), Store: open})
	before := files(t, dir)
	for _, dst := range []string{"dir:" + dir + "/x", "containers-storage:x"} {
		if _, err := c.try(t, "oci:"+dir+"/oci:a", dst); !errors.Is(err, kimg.ErrDenied) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	if _, err := c.Validate(context.Background(), ref(t, "oci:"+dir+"/oci:a"), true); !errors.Is(err, kimg.ErrDenied) {
		t.Errorf("validate: %v", err)
	}
	same(t, "the destination", before, files(t, dir))
	// The store's own images need no leave.
	converter(t, Options{Store: open}).must(t, "oci:"+dir+"/oci:a", "x")
	c.must(t, "x", "dir:"+dir+"/x")
	broken := converter(t, Options{Sys: policyFile(t, "nonsense")})
	if _, err := broken.try(t, "oci:"+dir+"/oci:a", "dir:"+dir+"/y"); !errors.Is(err, kimg.ErrInvalid) {
		t.Errorf("a broken policy: %v", err)
	}
}

// No store is opened where none is named, and none can be used where there is none.
func TestNoStore(t *testing.T) {
	dir := t.TempDir()
	check(t, testimage.NewImage(2, testimage.ImageOptions{}).WriteOCI(dir+"/oci", "a"))
	c := converter(t, Options{Store: func() (*storeType, error) { return nil, kimg.Errorf(kimg.ErrInternal, "", "opened") }})
	c.must(t, "oci:"+dir+"/oci:a", "dir:"+dir+"/x")
	for _, pair := range [][2]string{{"oci:" + dir + "/oci:a", "app"}, {"app", "dir:" + dir + "/y"}} {
		if _, err := converter(t, Options{}).try(t, pair[0], pair[1]); !errors.Is(err, kimg.ErrUnsupported) {
			t.Errorf("%v: %v", pair, err)
		}
	}
}

// Foreign layers are descriptors only.
func TestForeignLayers(t *testing.T) {
	dir := t.TempDir()
	st := newStore(t)
	img := testimage.NewImage(2, testimage.ImageOptions{Layers: 2, Docker: true, Gzip: true})
	img.Manifest = edit(t, img.Manifest, func(m map[string]any) {
		l := m["layers"].([]any)[0].(map[string]any)
		l["mediaType"], l["urls"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []string{"https://127.0.0.1:1/never"}
	})
	img.Layers = img.Layers[1:]
	check(t, img.WriteDir(dir+"/v2"))
	c := converter(t, Options{Format: convert.OCI})
	r := c.must(t, "dir:"+dir+"/v2", "oci:"+dir+"/oci:a")
	if len(r.Layers) != 2 || r.Layers[0].DiffID != "" || len(r.DiffIDs) != 2 || r.DiffIDs[0] == "" {
		t.Errorf("%+v", r)
	}
	if v, err := c.Validate(context.Background(), ref(t, "oci:"+dir+"/oci:a"), false); err != nil || !v.Valid() {
		t.Errorf("%+v, %v", v, err)
	}
	before := files(t, dir)
	for dst, o := range map[string]Options{
		"docker-archive:" + dir + "/da": {}, "dir:" + dir + "/v1": {Format: convert.DockerV2S1}, "app": {}, "dir:" + dir + "/p": {Proof: true},
	} {
		o.Store = func() (*storeType, error) { return st, nil }
		if _, err := converter(t, o).try(t, "dir:"+dir+"/v2", dst); !errors.Is(err, kimg.ErrUnsupported) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	same(t, "the destination", before, files(t, dir))
}

func TestReferences(t *testing.T) {
	for text, class := range map[string]kimg.Class{
		"docker-daemon:x:1": kimg.ErrUnsupported, "docker://": kimg.ErrInvalid, "oci:": kimg.ErrInvalid, "docker-archive:": kimg.ErrInvalid,
		"docker://UPPER": kimg.ErrInvalid, "oci:/tmp:bad name": kimg.ErrInvalid,
	} {
		if _, err := Parse(text); !errors.Is(err, class) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, store := range map[string]bool{"alpine": true, "localhost/x:1": true, "containers-storage:x": true, "dir:/tmp": false, "docker://x": false, "oci:/tmp:x": false} {
		if got := NamesStore(ref(t, text)); got != store {
			t.Errorf("%q is of the store: %v", text, got)
		}
	}
	dir := t.TempDir()
	check(t, testimage.NewImage(2, testimage.ImageOptions{}).WriteOCI(dir+"/oci", "a"))
	for dst, format := range map[string]convert.Format{
		"oci:" + dir + "/x": convert.DockerV2S2, "docker-archive:" + dir + "/x": convert.OCI,
		"oci-archive:" + dir + "/x": convert.DockerV2S1, "x": convert.DockerV2S1, "oci:" + dir + "/oci:@0": "",
	} {
		_, err := converter(t, Options{Format: format}).try(t, "oci:"+dir+"/oci:a", dst)
		if !errors.Is(err, kimg.ErrUnsupported) && !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s: %v", dst, err)
		}
	}
}
