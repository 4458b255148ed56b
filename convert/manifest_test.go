package convert_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

const (
	ociManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + blobA + `","size":7,"annotations":{"c":"1"}},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + blobA + `","size":1,"annotations":{"l":"2"}},` +
		`{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd","digest":"` + blobB + `","size":2,"urls":["https://example.org/l"]}],` +
		`"annotations":{"m":"3"},"future":[1.0]}`
	dockerManifest = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` +
		`"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":7,"digest":"` + blobA + `"},` +
		`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":1,"digest":"` + blobA + `"},` +
		`{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar","size":2,"digest":"` + blobB + `","urls":["https://example.org/l"]}]}`
	v1Manifest = `{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64","fsLayers":[{"blobSum":"` + blobA + `"}],"history":[{"v1Compatibility":"{}"}]}`
)

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name, body, hint string
		want             convert.Format
		class            kimg.Class
		word             string
	}{
		{"oci", ociManifest, "", convert.OCI, "", ""},
		{"docker", dockerManifest, "", convert.DockerV2S2, "", ""},
		{"schema 1", v1Manifest, "", convert.DockerV2S1, "", ""},
		{"schema 1 under any name", v1Manifest, "text/plain", convert.DockerV2S1, "", ""},
		{"signed", strings.Replace(v1Manifest, `"name"`, `"signatures":[],"name"`, 1), docker.MediaTypeV1Manifest, convert.DockerV2S1, "", ""},
		{"the body decides", dockerManifest, ispec.MediaTypeImageManifest, convert.DockerV2S2, "", ""},
		{"old oci", strings.Replace(ociManifest, `"mediaType":"application/vnd.oci.image.manifest.v1+json",`, ``, 1), "", convert.OCI, "", ""},
		{"unlabelled docker", strings.Replace(dockerManifest, `"mediaType":"application/vnd.docker.distribution.manifest.v2+json",`, ``, 1), "", "", kimg.ErrInvalid, "media-type"},
		{"artifact", `{"schemaVersion":2,"config":{"mediaType":"application/x"},"layers":[]}`, "", convert.OCI, "", ""},
		{"oci index", `{"schemaVersion":2,"manifests":[]}`, "", "", kimg.ErrUnsupported, "index"},
		{"docker list", `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}`, "", "", kimg.ErrUnsupported, "index"},
		{"index of another type", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}`, "", "", kimg.ErrInvalid, "media-type"},
		{"index and image", `{"schemaVersion":2,"manifests":[],"layers":[]}`, "", "", kimg.ErrInvalid, "ambiguous"},
		{"image and schema 1", strings.Replace(ociManifest, `"layers"`, `"fsLayers":[],"layers"`, 1), "", "", kimg.ErrInvalid, "ambiguous"},
		{"image and history", strings.Replace(ociManifest, `"layers"`, `"history":null,"layers"`, 1), "", "", kimg.ErrInvalid, "ambiguous"},
		{"schema 1 and image", strings.Replace(v1Manifest, `"name"`, `"config":{},"name"`, 1), "", "", kimg.ErrInvalid, "ambiguous"},
		{"schema 1 and index", strings.Replace(v1Manifest, `"name"`, `"manifests":null,"name"`, 1), "", "", kimg.ErrInvalid, "ambiguous"},
		{"schema 1 of another type", strings.Replace(v1Manifest, `"name"`, `"mediaType":"application/vnd.oci.image.manifest.v1+json","name"`, 1), "", "", kimg.ErrInvalid, "media-type"},
		{"half of schema 1", `{"schemaVersion":1,"history":[]}`, "", "", kimg.ErrInvalid, "count"},
		{"other case", strings.Replace(ociManifest, `"layers"`, `"FSLAYERS":[],"layers"`, 1), "", "", kimg.ErrInvalid, "ambiguous"},
		{"lone other case", strings.Replace(ociManifest, `"layers"`, `"Layers"`, 1), "", "", kimg.ErrInvalid, "duplicate-key"},
		{"other type", strings.Replace(ociManifest, `image.manifest.v1`, `image.manifest.v2`, 1), "", "", kimg.ErrInvalid, "media-type"},
		{"index type on an image", strings.Replace(ociManifest, `image.manifest.v1`, `image.index.v1`, 1), "", "", kimg.ErrInvalid, "media-type"},
		{"no version", `{"config":{},"layers":[]}`, "", "", kimg.ErrInvalid, "schema-version"},
		{"version 3", `{"schemaVersion":3}`, "", "", kimg.ErrInvalid, "schema-version"},
		{"version text", `{"schemaVersion":"2"}`, "", "", kimg.ErrInvalid, "schema-version"},
		{"version 2.0", `{"schemaVersion":2.0}`, "", "", kimg.ErrInvalid, "schema-version"},
		{"no members", `{"schemaVersion":2}`, "", "", kimg.ErrInvalid, "json-type"},
		{"no layers", `{"schemaVersion":2,"config":{}}`, "", "", kimg.ErrInvalid, "json-type"},
		{"null", `null`, "", "", kimg.ErrInvalid, "json-type"},
		{"cut", ociManifest[:100], "", "", kimg.ErrInvalid, "json"},
		{"two", ociManifest + ociManifest, "", "", kimg.ErrInvalid, "json"},
		{"large", ociManifest + strings.Repeat(" ", 4<<20), "", "", kimg.ErrLimit, "too-big"},
		{"deep", strings.Replace(ociManifest, `[1.0]`, strings.Repeat("[", 200)+strings.Repeat("]", 200), 1), "", "", kimg.ErrLimit, "depth"},
	} {
		got, err := convert.Detect([]byte(c.body), c.hint)
		if kimg.ClassOf(err) != c.class || err != nil && !strings.Contains(err.Error(), "manifest: "+c.word) && !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestParseManifest(t *testing.T) {
	v, err := convert.ParseManifest([]byte(ociManifest))
	if err != nil {
		t.Fatal(err)
	}
	want := convert.ManifestView{
		Format: convert.OCI, MediaType: ispec.MediaTypeImageManifest,
		Config: ispec.Descriptor{MediaType: ispec.MediaTypeImageConfig, Digest: blobA, Size: 7, Annotations: map[string]string{"c": "1"}},
		Layers: []convert.Layer{
			{Digest: blobA, Size: 1, MediaType: ispec.MediaTypeImageLayerGzip, Annotations: map[string]string{"l": "2"}},
			{Digest: blobB, Size: 2, MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", URLs: []string{"https://example.org/l"}},
		},
		Annotations: map[string]string{"m": "3"}, Unknown: map[string]json.RawMessage{"future": json.RawMessage("[1.0]")},
	}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	v, err = convert.ParseManifest([]byte(strings.Replace(dockerManifest, `"config"`, `"annotations":{},"config"`, 1)))
	if err != nil || v.Format != convert.DockerV2S2 || len(v.Layers) != 2 || v.Config.Size != 7 || v.Annotations != nil || v.Unknown["annotations"] == nil {
		t.Errorf("%v %+v", err, v)
	}
}

// Early registries gave the configuration types that say nothing; the image is one all the same.
func TestOldConfigTypes(t *testing.T) {
	for _, typ := range []string{"", "application/octet-stream", "application/json", "text/html"} {
		v, err := convert.ParseManifest([]byte(strings.Replace(dockerManifest, docker.MediaTypeConfig, typ, 1)))
		if err != nil || v.Config.MediaType != docker.MediaTypeConfig {
			t.Errorf("%q: %v %s", typ, err, v.Config.MediaType)
		}
		if _, err := convert.ParseManifest([]byte(strings.Replace(ociManifest, ispec.MediaTypeImageConfig, typ, 1))); kimg.ClassOf(err) != kimg.ErrUnsupported {
			t.Errorf("%q in an OCI manifest: %v", typ, err)
		}
	}
	if _, err := convert.ParseManifest([]byte(strings.Replace(dockerManifest, docker.MediaTypeConfig, ispec.MediaTypeImageConfig, 1))); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error(err)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	many := `"layers":[` + strings.Repeat(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"`+blobA+`","size":1},`, 500)
	for _, c := range []struct {
		old, new string
		class    kimg.Class
		word     string
	}{
		{`image.config.v1+json`, `artifact.config.v1+json`, kimg.ErrUnsupported, "not-an-image"},
		{`application/vnd.oci.image.config.v1+json`, ``, kimg.ErrUnsupported, "not-an-image"},
		{`application/vnd.oci.image.config.v1+json`, docker.MediaTypeConfig, kimg.ErrInvalid, "media-type"},
		{`,"size":7`, ``, kimg.ErrInvalid, "size: config"},
		{`,"size":1`, ``, kimg.ErrInvalid, "size: entry 0"},
		{`"size":7`, `"size":-1`, kimg.ErrInvalid, "size"},
		{`"size":7`, `"size":4194305`, kimg.ErrLimit, "too-big"},
		{`"size":7`, `"size":"7"`, kimg.ErrInvalid, "json-type"},
		{`"size":7`, `"size":7,"Size":8`, kimg.ErrInvalid, "duplicate-key"},
		{`"size":1`, `"size":-1`, kimg.ErrInvalid, "layers[0]: size"},
		{blobB, `sha256:x`, kimg.ErrInvalid, "layers[1]: digest"},
		{blobB, `sha256:../../x`, kimg.ErrInvalid, "digest"},
		{blobB, ``, kimg.ErrInvalid, "digest"},
		{`layer.v1.tar+gzip`, `layer.v1.tar+bzip2`, kimg.ErrUnsupported, "layers[0]: media-type"},
		{`layer.v1.tar+gzip`, `layer.v1.tar+gzip+encrypted`, kimg.ErrUnsupported, "encrypted"},
		{`application/vnd.oci.image.layer.v1.tar+gzip`, ``, kimg.ErrInvalid, "media-type"},
		{`"layers":[`, `"layers":[null,`, kimg.ErrInvalid, "json-type"},
		{`"layers":[`, `"layers":{},"x":[`, kimg.ErrInvalid, "json-type"},
		{`"layers":[`, `"layers":null,"x":[`, kimg.ErrInvalid, "json-type"},
		{`"layers":[`, many, kimg.ErrLimit, "too-big"},
		{`"size":7`, `"size":2,"data":"e30="`, kimg.ErrIntegrity, "blob-digest"},
		{`"annotations":{"m":"3"}`, `"annotations":{"m":3}`, kimg.ErrInvalid, "json-type"},
		{`"annotations":{"m":"3"}`, `"annotations":{"m":"3","m":"3"}`, kimg.ErrInvalid, "duplicate-key"},
		{`"config":{`, `"config":{"mediatype":"x",`, kimg.ErrInvalid, "duplicate-key"},
	} {
		bad := strings.Replace(ociManifest, c.old, c.new, 1)
		if _, err := convert.ParseManifest([]byte(bad)); bad == ociManifest || kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	if _, err := convert.ParseManifest([]byte(v1Manifest)); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
	const data = `"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="`
	good := strings.Replace(ociManifest, `"digest":"`+blobA+`","size":7`, data, 1)
	if v, err := convert.ParseManifest([]byte(good)); err != nil || string(v.Config.Data) != "{}" {
		t.Error(err)
	}
}

// Every layer type has a type in the other format or a refusal, and comes back as it was.
func TestLayerTypes(t *testing.T) {
	pairs := map[string]string{
		docker.MediaTypeLayer:            ispec.MediaTypeImageLayer,
		docker.MediaTypeLayerGzip:        ispec.MediaTypeImageLayerGzip,
		docker.MediaTypeForeignLayer:     "application/vnd.oci.image.layer.nondistributable.v1.tar",
		docker.MediaTypeForeignLayerGzip: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
	}
	write := func(f convert.Format, mediaType string) (string, error) {
		data, _, err := convert.Manifest(f, descriptor("{}"), []convert.Layer{{Digest: blobA, MediaType: mediaType}}, nil)
		if err != nil {
			return "", err
		}
		v, err := convert.ParseManifest(data)
		if err != nil {
			return "", err
		}
		return v.Layers[0].MediaType, nil
	}
	for d, o := range pairs {
		for _, from := range []string{d, o} {
			if got, err := write(convert.DockerV2S2, from); got != d || err != nil {
				t.Errorf("%s to Docker: %s %v", from, got, err)
			}
			if got, err := write(convert.OCI, from); got != o || err != nil {
				t.Errorf("%s to OCI: %s %v", from, got, err)
			}
		}
	}
	for _, zstd := range []string{ispec.MediaTypeImageLayerZstd, docker.MediaTypeLayerZstd, "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"} {
		if _, err := write(convert.DockerV2S2, zstd); kimg.ClassOf(err) != kimg.ErrUnsupported {
			t.Errorf("%s to Docker: %v", zstd, err)
		}
		if got, err := write(convert.OCI, zstd); !strings.HasSuffix(got, "+zstd") || err != nil {
			t.Errorf("%s to OCI: %s %v", zstd, got, err)
		}
	}
	if got, err := write(convert.OCI, ""); got != ispec.MediaTypeImageLayer || err != nil {
		t.Error(got, err)
	}
}

func TestManifest(t *testing.T) {
	view, err := convert.ParseManifest([]byte(strings.Replace(ociManifest, "+zstd", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	data, mediaType, err := convert.Manifest(convert.DockerV2S2, view.Config, view.Layers, view.Annotations)
	if err != nil || mediaType != docker.MediaTypeManifest || string(data) != dockerManifest {
		t.Errorf("%v %s\n%s", err, mediaType, data)
	}
	var lost []string
	for _, c := range convert.ManifestLosses(convert.DockerV2S2, view.Layers, view.Annotations) {
		lost = append(lost, c.String())
	}
	const why = ": a Docker manifest has no annotations"
	if d := cmp.Diff([]string{"lost annotations.m" + why, "lost layers[0].annotations.l" + why}, lost); d != "" {
		t.Error(d)
	}
	if convert.ManifestLosses(convert.OCI, view.Layers, view.Annotations) != nil {
		t.Error("OCI loses something")
	}
	data, mediaType, err = convert.Manifest(convert.OCI, view.Config, nil, map[string]string{"a": "b"})
	const want = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` +
		`"digest":"` + blobA + `","size":7,"annotations":{"c":"1"}},"layers":[],"annotations":{"a":"b"}}`
	if err != nil || mediaType != ispec.MediaTypeImageManifest || string(data) != want {
		t.Errorf("%v %s\n%s", err, mediaType, data)
	}
	for name, bad := range map[string]struct {
		f      convert.Format
		config ispec.Descriptor
		layers []convert.Layer
		class  kimg.Class
	}{
		"format":       {convert.DockerV2S1, view.Config, nil, kimg.ErrUnsupported},
		"config":       {convert.OCI, ispec.Descriptor{}, nil, kimg.ErrInvalid},
		"layer digest": {convert.OCI, view.Config, []convert.Layer{{}}, kimg.ErrInvalid},
		"layer size":   {convert.OCI, view.Config, []convert.Layer{{Digest: blobA, Size: -1}}, kimg.ErrInvalid},
		"layer type":   {convert.OCI, view.Config, []convert.Layer{{Digest: blobA, MediaType: "x"}}, kimg.ErrUnsupported},
		"layers":       {convert.OCI, view.Config, make([]convert.Layer, 501), kimg.ErrLimit},
	} {
		if data, _, err := convert.Manifest(bad.f, bad.config, bad.layers, nil); kimg.ClassOf(err) != bad.class || data != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a manifest says survives the way to the other format and back, annotations excepted.
func TestManifestRoundTrip(t *testing.T) {
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		for n := range 4 {
			doc := document(t, f, dockerConfig, n)
			v, err := convert.ParseManifest(doc.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			other := convert.OCI
			if f == convert.OCI {
				other = convert.DockerV2S2
			}
			there, _, err := convert.Manifest(other, v.Config, v.Layers, nil)
			if err != nil {
				t.Fatal(err)
			}
			v, err = convert.ParseManifest(there)
			if err != nil {
				t.Fatal(err)
			}
			if back, _, err := convert.Manifest(f, v.Config, v.Layers, nil); err != nil || string(back) != string(doc.Manifest) {
				t.Errorf("%s, %d layers: %v\n%s\n%s", f, n, err, doc.Manifest, back)
			}
		}
	}
}

func TestFormatTypes(t *testing.T) {
	for f, want := range map[convert.Format][2]string{
		convert.OCI:        {ispec.MediaTypeImageManifest, ispec.MediaTypeImageConfig},
		convert.DockerV2S2: {docker.MediaTypeManifest, docker.MediaTypeConfig},
		convert.DockerV2S1: {docker.MediaTypeV1Manifest, ""},
	} {
		if got := [2]string{f.ManifestType(), f.ConfigType()}; got != want {
			t.Errorf("%s: %s", f, fmt.Sprint(got))
		}
	}
}
