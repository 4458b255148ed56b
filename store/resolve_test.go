package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// B5: by name, short name, ID, prefix and digest.
func TestResolve(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	put := func(seed string, names ...string) *store.Image {
		t.Helper()
		img, err := ts.PutImage(ctx, record(t, seed, "", names))
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	local := put("1", "tool", "both")
	alpine := put("2", "docker.io/library/alpine:3.18", "quay.io/team/both")
	app := put("3", "registry.example:5000/team/app", "registry.example:5000/team/app:v1", "localhost/cafe")
	twice := put("4", "quay.io/one/twice")
	other := put("5", "quay.io/two/twice")
	_, _ = twice, other

	for ref, want := range map[string]*store.Image{
		"tool": local, "tool:latest": local, "localhost/tool": local, "localhost/tool:latest": local,
		"both":        local, // localhost wins
		"alpine:3.18": alpine, "library/alpine:3.18": alpine, "docker.io/alpine:3.18": alpine, "docker.io/library/alpine:3.18": alpine,
		"app": app, "app:v1": app, "team/app": app, "registry.example:5000/team/app": app,
		"cafe":   app, // a name, though it could begin an ID
		local.ID: local, "sha256:" + local.ID: local, local.ID[:13]: local, "sha256:" + local.ID[:20]: local,
		"tool@" + local.Digest.String():                         local,
		"tool:latest@" + local.Digest.String():                  local,
		"docker.io/library/alpine@" + alpine.Digest.String():    alpine,
		"sha256:" + alpine.Digest.Encoded():                     alpine,
		"registry.example:5000/team/app@" + app.Digest.String(): app,
		"app@" + app.Digest.String():                            app,
		"one/twice":                                             twice,
	} {
		if got, err := ts.Resolve(ctx, ref, nil); err != nil || got.ID != want.ID {
			t.Errorf("%s: %+v, %v; want %v", ref, got, err, want.Names)
		}
	}
	for ref, want := range map[string]kimg.Class{
		"": kimg.ErrInvalid, "alpine": kimg.ErrNotFound, "ine:3.18": kimg.ErrNotFound, "twice": kimg.ErrInvalid, "UPPER": kimg.ErrInvalid,
		"quay.io/alpine:3.18": kimg.ErrNotFound, "app@" + local.Digest.String(): kimg.ErrNotFound, "sha256:xyz": kimg.ErrInvalid,
		strings.Repeat("0", 64): kimg.ErrNotFound, strings.Repeat("a/", 400): kimg.ErrLimit, "\x1b[31m": kimg.ErrInvalid,
	} {
		if got, err := ts.Resolve(ctx, ref, nil); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v; want %s", ref, got, err, want)
		}
	}
	if _, err := ts.Resolve(ctx, "twice", nil); !strings.Contains(err.Error(), "quay.io/one/twice:latest") || !strings.Contains(err.Error(), "quay.io/two/twice:latest") {
		t.Errorf("the candidates are not named: %v", err)
	}
	if _, err := ts.Resolve(ctx, "tool", &ispec.Platform{OS: "linux", Architecture: "amd64"}); err != nil {
		t.Error(err)
	}
	if _, err := ts.Resolve(ctx, "tool", &ispec.Platform{OS: "linux", Architecture: "s390x"}); !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
}

func TestTagUntagDelete(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	one, two := ts.addImage(t, "one", "one"), ts.addImage(t, "two", "two")
	if img, err := ts.Tag(ctx, "one", "two", "three:v1"); err != nil || len(img.Names) != 3 {
		t.Fatalf("%+v, %v", img, err)
	}
	if img, err := ts.Resolve(ctx, two.ID, nil); err != nil || len(img.Names) != 0 {
		t.Errorf("the name did not move: %+v, %v", img, err)
	}
	if _, err := ts.Tag(ctx, "one", "x@"+one.Digest.String()); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
	if _, err := ts.Tag(ctx, "one", one.ID); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
	if d, err := ts.DeleteImage(ctx, "three:v1", false); err != nil || d.ID != "" || len(d.Untagged) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := ts.DeleteImage(ctx, one.ID, false); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("an image of two names went by its ID: %v", err)
	}
	if _, err := ts.Untag(ctx, "one", "three:v1"); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
	if img, err := ts.Untag(ctx, "one", "two"); err != nil || len(img.Names) != 1 {
		t.Errorf("%+v, %v", img, err)
	}
	if d, err := ts.DeleteImage(ctx, "one", false); err != nil || d.ID != one.ID || len(d.Layers) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := ts.DeleteImage(ctx, two.ID[:10], false); err != nil || d.ID != two.ID {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestTwoFormatsOfOneImage commits the same configuration with another manifest.
func TestTwoFormatsOfOneImage(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	rec := record(t, "x", "", []string{"first"})
	img, err := ts.PutImage(ctx, rec)
	if err != nil {
		t.Fatal(err)
	}
	second := rec
	second.Manifest = append(bytes.Clone(rec.Manifest), ' ')
	second.Names = []string{"second"}
	again, err := ts.PutImage(ctx, second)
	if err != nil || again.ID != img.ID || len(again.Names) != 2 {
		t.Fatalf("%+v, %v", again, err)
	}
	if m, _, err := again.Manifest(ctx); err != nil || !bytes.Equal(m, rec.Manifest) {
		t.Errorf("the first name has lost its manifest: %v", err)
	}
	if m, _, err := again.ManifestByDigest(ctx, digest.FromBytes(second.Manifest)); err != nil || !bytes.Equal(m, second.Manifest) {
		t.Errorf("the second manifest is missing: %v", err)
	}
	if got, err := ts.Resolve(ctx, "second@"+digest.FromBytes(second.Manifest).String(), nil); err != nil || got.ID != img.ID {
		t.Errorf("by the second digest: %v", err)
	}
	second.Names = []string{"first", "second"}
	if again, err = ts.PutImage(ctx, second); err != nil {
		t.Fatal(err)
	}
	if m, _, err := again.Manifest(ctx); err != nil || !bytes.Equal(m, second.Manifest) {
		t.Errorf("every name was given to the second manifest, and the first is still there: %v", err)
	}
}

// TestManifestList resolves an image index as podman keeps them.
func TestManifestList(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "one", "one")
	index := ispec.Index{MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{
		{MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 3, Platform: &ispec.Platform{OS: "linux", Architecture: "s390x"}},
		{MediaType: ispec.MediaTypeImageManifest, Digest: img.Digest, Size: 3, Platform: &ispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
	}}
	index.SchemaVersion = 2
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	list, err := ts.PutImage(ctx, store.ImageRecord{Config: []byte("{}"), Manifest: data, Names: []string{"list"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ts.Storage().SetImageBigData(list.ID, "instances.json", []byte("{}"), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := ts.Resolve(ctx, "list", &ispec.Platform{OS: "linux", Architecture: "arm64"}); err != nil || got.ID != img.ID {
		t.Errorf("%+v, %v", got, err)
	}
	for _, arch := range []string{"s390x", "riscv64"} {
		if _, err := ts.Resolve(ctx, "list", &ispec.Platform{OS: "linux", Architecture: arch}); !errors.Is(err, kimg.ErrUnsupported) || !strings.Contains(err.Error(), arch) {
			t.Errorf("%s: %v", arch, err)
		}
	}
}

func TestNormalizeName(t *testing.T) {
	for in, want := range map[string]string{
		"a": "localhost/a:latest", "a:v1": "localhost/a:v1", "x/y": "localhost/x/y:latest", "localhost/a": "localhost/a:latest",
		"docker.io/alpine": "docker.io/library/alpine:latest", "q.io/a@sha256:" + strings.Repeat("0", 64): "q.io/a@sha256:" + strings.Repeat("0", 64),
		"host:5000/a": "host:5000/a:latest",
	} {
		if got, err := store.NormalizeName(in); err != nil || got != want {
			t.Errorf("%s: %s, %v", in, got, err)
		} else if again, err := store.NormalizeName(got); err != nil || again != got {
			t.Errorf("%s is not stable: %s, %v", got, again, err)
		}
	}
	for _, in := range []string{"", "A", "a b", strings.Repeat("a", 256), strings.Repeat("a", 64), "a:v1@sha256:" + strings.Repeat("0", 64), "../a"} {
		if got, err := store.NormalizeName(in); err == nil {
			t.Errorf("%s: %s", in, got)
		}
	}
}
