package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

// damages are what can happen to the bytes of a blob; the argument is its own and another blob of the image.
var damages = map[string]func(own, other []byte) []byte{
	"flip":   func(own, _ []byte) []byte { b := slices.Clone(own); b[len(b)/2] ^= 4; return b },
	"cut":    func(own, _ []byte) []byte { return own[:len(own)-1] },
	"empty":  func(own, _ []byte) []byte { return []byte{} },
	"extend": func(own, _ []byte) []byte { return append(slices.Clone(own), 0) },
	"swap":   func(_, other []byte) []byte { return other },
}

// goodImage is an image at a place, and how its blobs are reached.
type goodImage struct {
	name  string
	ref   string
	blobs []string // digests
	// write makes the image, with blobs replaced; sizes changes what a manifest says of a blob's size.
	write func(t *testing.T, dir string, change func(digest string, blob []byte) []byte, sizes map[string]int)
}

func layersOf(layers []testimage.ImageLayer) (all []string) {
	for _, l := range layers {
		all = append(all, l.Digest)
	}
	return all
}

func resized(t *testing.T, manifest []byte, sizes map[string]int) []byte {
	return edit(t, manifest, func(m map[string]any) {
		for _, d := range append([]any{m["config"]}, m["layers"].([]any)...) {
			d := d.(map[string]any)
			d["size"] = int(d["size"].(float64)) + sizes[d["digest"].(string)]
		}
	})
}

// changed returns the image with other blobs and sizes in place.
func changed(t *testing.T, img testimage.Image, change func(string, []byte) []byte, sizes map[string]int) testimage.Image {
	img.Layers = slices.Clone(img.Layers)
	for i, l := range img.Layers {
		img.Layers[i].Blob = change(l.Digest, l.Blob)
	}
	img.Manifest = resized(t, img.Manifest, sizes)
	return img
}

func goodImages() []goodImage {
	docker := testimage.NewImage(11, testimage.ImageOptions{Layers: 3, Docker: true, Gzip: true})
	oci := testimage.NewImage(12, testimage.ImageOptions{Layers: 2})
	v1 := testimage.NewV1(testimage.V1Options{Seed: 13, Layers: 4, Empty: 1, Signed: true, Compression: []string{"gzip", "plain", "xz", "bzip2"}})
	v1Blobs := layersOf(v1.Layers)
	slices.Sort(v1Blobs)
	good := []goodImage{
		{"dir of schema 2", "dir:%s/img", append(layersOf(docker.Layers), testimage.Digest(docker.Config)),
			func(t *testing.T, dir string, change func(string, []byte) []byte, sizes map[string]int) {
				img := changed(t, docker, change, sizes)
				check(t, img.WriteDir(dir+"/img"))
				check(t, os.WriteFile(dir+"/img/"+testimage.Digest(docker.Config)[7:], change(testimage.Digest(docker.Config), docker.Config), 0o644))
			}},
		{"layout", "oci:%s/img:a", append(layersOf(oci.Layers), testimage.Digest(oci.Config)),
			func(t *testing.T, dir string, change func(string, []byte) []byte, sizes map[string]int) {
				img := changed(t, oci, change, sizes)
				check(t, img.WriteOCI(dir+"/img", "a"))
				check(t, os.WriteFile(layoutBlob(dir+"/img", testimage.Digest(oci.Config)), change(testimage.Digest(oci.Config), oci.Config), 0o644))
			}},
		{"dir of schema 1", "dir:%s/img", slices.Compact(v1Blobs),
			func(t *testing.T, dir string, change func(string, []byte) []byte, _ map[string]int) {
				img := v1
				img.Blobs = maps.Clone(v1.Blobs)
				for d, blob := range v1.Blobs {
					img.Blobs[d] = change(d, blob)
				}
				check(t, img.WriteDir(dir+"/img"))
			}},
	}
	archive := func(name, transport string, img testimage.Image) goodImage {
		blobs := append(layersOf(img.Layers), testimage.Digest(img.Config))
		return goodImage{name, transport + ":%s/img.tar", blobs,
			func(t *testing.T, dir string, change func(string, []byte) []byte, sizes map[string]int) {
				img := changed(t, img, func(_ string, b []byte) []byte { return b }, sizes)
				check(t, img.WriteOCI(dir+"/from", "a"))
				if transport == "oci-archive" {
					packLayout(t, dir+"/from", dir+"/img.tar")
				} else {
					converter(t, Options{}).must(t, "oci:"+dir+"/from:a", "docker-archive:"+dir+"/img.tar:x:1")
				}
				check(t, os.RemoveAll(dir+"/from"))
				rewriteTar(t, dir+"/img.tar", func(member string, content []byte) []byte {
					for _, d := range blobs {
						if strings.Contains(member, d[7:]) {
							return change(d, content)
						}
					}
					return content
				})
			}}
	}
	return append(good, archive("oci-archive", "oci-archive", oci), archive("docker-archive", "docker-archive", oci))
}

// packLayout makes an oci-archive of a layout as it is.
func packLayout(t *testing.T, dir, file string) {
	t.Helper()
	runTar(t, "-C", dir, "-cf", file, ".")
}

// Whatever happens to a blob, the image is refused and the destination is what it was.
func TestDamage(t *testing.T) {
	st := newStore(t)
	for _, good := range goodImages() {
		nothing := func(_ string, b []byte) []byte { return b }
		work := t.TempDir()
		good.write(t, work, nothing, nil)
		src := fmt.Sprintf(good.ref, work)
		// The destinations hold another image already.
		check(t, testimage.NewImage(99, testimage.ImageOptions{}).WriteOCI(work+"/layout", "other"))
		check(t, testimage.NewImage(99, testimage.ImageOptions{Docker: true}).WriteDir(work+"/dir"))
		targets := []string{"oci:" + work + "/layout:new", "dir:" + work + "/dir", "dir:" + work + "/absent", "docker-archive:" + work + "/da:x:1", "containers-storage:new"}
		o := Options{Store: func() (*storeType, error) { return st, nil }}
		refuse := func(what string, change func(string, []byte) []byte, sizes map[string]int, dst string) {
			t.Helper()
			bad := t.TempDir()
			good.write(t, bad, change, sizes)
			before := files(t, work)
			c := converter(t, o)
			from := fmt.Sprintf(good.ref, bad)
			if _, err := c.try(t, from, dst); !errors.Is(err, kimg.ErrIntegrity) {
				t.Errorf("%s, %s -> %s: %v", good.name, what, dst, err)
			}
			same(t, good.name+", "+what+": "+dst, before, files(t, work))
			v, err := c.Validate(context.Background(), ref(t, from), false)
			if (err == nil) == v.Valid() {
				t.Errorf("%s, %s: validate: %+v, %v", good.name, what, v, err)
			}
			if images, err := st.Images(context.Background()); err != nil || len(images) > 0 {
				t.Errorf("%s, %s: the store has %d images, %v", good.name, what, len(images), err)
			}
			check(t, os.RemoveAll(bad))
		}
		n := 0
		for i, d := range good.blobs {
			var other []byte
			good.write(t, t.TempDir(), func(digest string, b []byte) []byte {
				if digest != d {
					other = b
				}
				return b
			}, nil)
			for name, damage := range damages {
				n++
				refuse(fmt.Sprintf("%s of blob %d", name, i), func(digest string, b []byte) []byte {
					if digest == d {
						return damage(b, other)
					}
					return b
				}, nil, targets[n%len(targets)])
			}
			if good.name == "dir of schema 1" || good.name == "docker-archive" {
				continue // they declare no sizes
			}
			for _, by := range []int{1, -1} {
				refuse(fmt.Sprintf("size of blob %d by %d", i, by), nothing, map[string]int{d: by}, targets[(i+by+5)%len(targets)])
			}
		}
		converter(t, Options{}).must(t, src, targets[0])
	}
	if layers, err := st.Storage().Layers(); err != nil || len(layers) > 0 {
		t.Errorf("the store has %d layers, %v", len(layers), err)
	}
}

// A configuration that speaks of other layers, or of more or fewer, is refused.
func TestDiffIDs(t *testing.T) {
	dir := t.TempDir()
	good := testimage.NewImage(3, testimage.ImageOptions{Layers: 2, Gzip: true})
	for name, change := range map[string]func(ids []any) []any{
		"swapped": func(ids []any) []any { return []any{ids[1], ids[0]} },
		"other":   func(ids []any) []any { return []any{ids[0], "sha256:" + strings.Repeat("0", 64)} },
		"fewer":   func(ids []any) []any { return ids[:1] },
	} {
		img := testimage.NewImage(3, testimage.ImageOptions{Layers: 2, Gzip: true, Change: func(config map[string]any) {
			var ids []any
			for _, l := range good.Layers {
				ids = append(ids, l.DiffID)
			}
			config["rootfs"] = map[string]any{"type": "layers", "diff_ids": change(ids)}
		}})
		check(t, img.WriteOCI(dir+"/"+name, "a"))
		before := files(t, dir)
		c := converter(t, Options{})
		want := kimg.ErrIntegrity
		if name == "fewer" {
			want = kimg.ErrInvalid
		}
		if _, err := c.try(t, "oci:"+dir+"/"+name+":a", "dir:"+dir+"/out"); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		same(t, name, before, files(t, dir))
		if v, err := c.Validate(context.Background(), ref(t, "oci:"+dir+"/"+name+":a"), false); err != nil || v.Valid() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

// Labels do not decide: what the first bytes show is what the result says.
func TestWrongLabels(t *testing.T) {
	dir := t.TempDir()
	img := testimage.NewImage(3, testimage.ImageOptions{Docker: true})
	img.Manifest = edit(t, img.Manifest, func(m map[string]any) {
		m["layers"].([]any)[0].(map[string]any)["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	})
	check(t, img.WriteDir(dir+"/v2"))
	c := converter(t, Options{Format: convert.OCI})
	v, err := c.Validate(context.Background(), ref(t, "dir:"+dir+"/v2"), false)
	if err != nil || len(v.Problems) != 1 || !strings.Contains(v.Problems[0].Error(), "media-type") {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := c.Validate(context.Background(), ref(t, "dir:"+dir+"/v2"), true); err != nil || !v.Valid() {
		t.Errorf("fast: %+v, %v", v, err)
	}
	c.must(t, "dir:"+dir+"/v2", "oci:"+dir+"/oci:a")
	if v, err := c.Validate(context.Background(), ref(t, "oci:"+dir+"/oci:a"), false); err != nil || !v.Valid() {
		t.Errorf("%+v, %v", v, err)
	}
}
