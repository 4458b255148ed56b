package convert_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

var formats = []convert.Format{convert.OCI, convert.DockerV2S2}

// Between schema 2 and OCI the configuration keeps its bytes, and so the image its ID.
func TestConvertKeepsTheConfig(t *testing.T) {
	for _, config := range []string{ociConfig, strings.Replace(dockerConfig, `"sh -c true"`, `["sh -c true"]`, 1)} {
		for _, from := range formats {
			for _, to := range formats {
				doc := document(t, from, config, strings.Count(config, "sha256:aaaa")+strings.Count(config, "sha256:bbbb"))
				out, report, err := convert.Convert(doc, to, nil, convert.Options{})
				if err != nil || report != nil || string(out.Config) != config || out.Format != to {
					t.Fatalf("%s to %s: %v %v\n%s", from, to, err, report, out.Config)
				}
				if same := string(out.Manifest) == string(doc.Manifest); same != (from == to) {
					t.Errorf("%s to %s: %s", from, to, out.Manifest)
				}
				if _, err := convert.Parse(out, nil); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// richDocument is an OCI image whose manifest says all that one can say, and more.
func richDocument() convert.Document {
	const config = `{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + diffA + `","` + diffB + `"]}}`
	d := descriptor(config)
	return convert.Document{Config: []byte(config), Manifest: []byte(`{ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/x",
 "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "` + string(d.Digest) + `", "size": ` + jsonText(d.Size) + `, "data": ` + jsonText([]byte(config)) + `,
  "annotations": {"c.d": "1"}, "urls": ["https://example.org/c"], "platform": {"architecture": "arm64", "os": "linux"}, "n": 1},
 "layers": [
  {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "` + blobA + `", "size": 1, "annotations": {"l": "2", "k": "3"}, "urls": ["https://example.org/1"], "new": [1.0]},
  {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": "` + blobB + `", "size": 2, "urls": ["https://example.org/2"], "artifactType": "application/y"}],
 "subject": {"mediaType": "application/z", "digest": "` + blobA + `", "size": 3, "annotations": {"s": "4"}},
 "annotations": {"b": "5", "a": "6"}, "future": 7 }`)}
}

func jsonText(v any) string { data, _ := json.Marshal(v); return string(data) }

// What a Docker manifest has no place for is lost, one line each, in the order of the source.
func TestManifestLosses(t *testing.T) {
	out, report, err := convert.Convert(richDocument(), convert.DockerV2S2, nil, convert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lost := []string{
		"lost artifactType", "lost config.data", "lost config.annotations.c.d", "lost config.platform", "lost config.n",
		"lost layers[0].annotations.l", "lost layers[0].annotations.k", "lost layers[0].new", "lost layers[1].artifactType",
		"lost subject", "lost annotations.b", "lost annotations.a", "lost future",
	}
	if d := cmp.Diff(lost, lines(report)); d != "" {
		t.Error(d)
	}
	want := strings.NewReplacer(`"size":7,"digest":"`+blobA+`"`, `"size":`+jsonText(len(out.Config))+`,"digest":"`+string(digest.FromBytes(out.Config))+`","urls":["https://example.org/c"]`,
		`"size":1,"digest":"`+blobA+`"`, `"size":1,"digest":"`+blobA+`","urls":["https://example.org/1"]`, `org/l"`, `org/2"`).Replace(dockerManifest)
	if string(out.Manifest) != want {
		t.Errorf("\n%s\n%s", out.Manifest, want)
	}
	// Back in OCI, the rest is as it was. What is new in a Docker manifest is nobody's.
	extra := convert.Document{Config: out.Config, Manifest: []byte(strings.Replace(want, `"config":{`, `"annotations":{"a":"b"},"subject":1,"config":{"x":1,`, 1))}
	back, report, err := convert.Convert(extra, convert.OCI, nil, convert.Options{})
	if d := cmp.Diff([]string{"lost annotations.a", "lost subject", "lost config.x"}, lines(report)); err != nil || d != "" {
		t.Error(err, d)
	}
	v, err := convert.ParseManifest(back.Manifest)
	if err != nil || v.Annotations != nil || v.Subject != nil || v.Layers[1].MediaType != "application/vnd.oci.image.layer.nondistributable.v1.tar" || v.Layers[1].URLs == nil {
		t.Errorf("%v %s", err, back.Manifest)
	}
}

// given are the layers of richDocument as they are.
func given() []convert.Layer {
	return []convert.Layer{
		{DiffID: diffA, Digest: blobA, Size: 1, MediaType: ispec.MediaTypeImageLayerGzip},
		{DiffID: diffB, Digest: blobB, Size: 2, MediaType: ispec.MediaTypeImageLayer},
	}
}

// Layers at the destination that are not what the manifest says: a wrong label is put right, a layer that was
// compressed anew takes its place. Within OCI all else stays as it is.
func TestConvertLayers(t *testing.T) {
	doc := richDocument()
	out, report, err := convert.Convert(doc, convert.OCI, given(), convert.Options{})
	if err != nil || report != nil || string(out.Manifest) != string(doc.Manifest) {
		t.Fatalf("%v %v\n%s", err, report, out.Manifest)
	}
	for _, c := range []struct {
		name         string
		change       func(l []convert.Layer)
		oci          []string // the report within OCI
		mediaType    [2]string
		extra        []string // what is in the OCI manifest now
		gone         string
		toV1, toV2S2 kimg.Class
	}{
		{"wrong label", func(l []convert.Layer) { l[0].MediaType = "" }, []string{"changed layers[0].mediaType"},
			[2]string{ispec.MediaTypeImageLayer, docker.MediaTypeLayer}, []string{`"new": [1.0]`, `"annotations": {"l": "2", "k": "3"}`, blobA}, "gzip", kimg.ErrUnsupported, ""},
		{"zstd", func(l []convert.Layer) { l[0].MediaType = ispec.MediaTypeImageLayerZstd }, []string{"changed layers[0].mediaType"},
			[2]string{ispec.MediaTypeImageLayerZstd}, nil, "gzip", kimg.ErrUnsupported, kimg.ErrUnsupported},
		{"compressed anew", func(l []convert.Layer) { l[0].Digest, l[0].Size = diffC, 9 }, []string{"changed layers[0].digest", "lost layers[0].urls"},
			[2]string{ispec.MediaTypeImageLayerGzip, docker.MediaTypeLayerGzip}, []string{`"new": [1.0]`, `"k": "3"`, `"size": 9`}, `example.org/1`, kimg.ErrUnsupported, ""},
		{"foreign no more", func(l []convert.Layer) {
			l[1] = convert.Layer{Digest: diffC, Size: 9, MediaType: docker.MediaTypeLayerGzip}
		},
			[]string{"changed layers[1].digest", "changed layers[1].mediaType", "lost layers[1].urls"},
			[2]string{ispec.MediaTypeImageLayerGzip, docker.MediaTypeLayerGzip}, []string{`"artifactType": "application/y"`, `"size": 9`}, "nondistributable", "", ""},
	} {
		layers := given()
		c.change(layers)
		out, report, err := convert.Convert(doc, convert.OCI, layers, convert.Options{})
		if d := cmp.Diff(c.oci, lines(report)); err != nil || d != "" {
			t.Errorf("%s: %v %s", c.name, err, d)
			continue
		}
		for _, want := range append(c.extra, `"future": 7`, `"c.d": "1"`, `"n": 1`) {
			want = strings.ReplaceAll(want, `": `, `":`)
			if text := strings.ReplaceAll(string(out.Manifest), `": `, `":`); !strings.Contains(text, want) || strings.Contains(text, c.gone) {
				t.Errorf("%s: no %s in %s", c.name, want, text)
			}
		}
		i := 0
		if c.name == "foreign no more" {
			i = 1
		}
		if v, err := convert.ParseManifest(out.Manifest); err != nil || v.Layers[i].MediaType != c.mediaType[0] || v.Layers[i].Digest != layers[i].Digest {
			t.Errorf("%s: %v %+v", c.name, err, v.Layers)
		}
		out, _, err = convert.Convert(doc, convert.DockerV2S2, layers, convert.Options{})
		if kimg.ClassOf(err) != c.toV2S2 {
			t.Errorf("%s to v2s2: %v", c.name, err)
		} else if v, err2 := convert.ParseManifest(out.Manifest); err == nil && (err2 != nil || v.Layers[i].MediaType != c.mediaType[1]) {
			t.Errorf("%s to v2s2: %v %+v", c.name, err2, v.Layers)
		}
		if out, _, err = convert.Convert(doc, convert.DockerV2S1, layers, convert.Options{}); kimg.ClassOf(err) != c.toV1 || err != nil && (out.Manifest != nil || out.Config != nil) {
			t.Errorf("%s to v2s1: %v", c.name, err)
		}
	}
}

func TestConvertRefuses(t *testing.T) {
	swap := func(old, new string) func(*convert.Document, *[]convert.Layer) {
		return func(d *convert.Document, _ *[]convert.Layer) {
			d.Manifest = []byte(strings.Replace(string(d.Manifest), old, new, 1))
		}
	}
	for _, c := range []struct {
		name   string
		to     convert.Format
		change func(d *convert.Document, l *[]convert.Layer)
		class  kimg.Class
		word   string
	}{
		{"no format", "", func(*convert.Document, *[]convert.Layer) {}, kimg.ErrUnsupported, "media-type"},
		{"other format", convert.OCI, func(d *convert.Document, _ *[]convert.Layer) { d.Format = convert.DockerV2S2 }, kimg.ErrInvalid, "media-type"},
		{"no manifest", convert.OCI, func(d *convert.Document, _ *[]convert.Layer) { d.Manifest = nil }, kimg.ErrInvalid, "json"},
		{"index", convert.OCI, func(d *convert.Document, _ *[]convert.Layer) { d.Manifest = []byte(ociIndex) }, kimg.ErrUnsupported, "not-an-image"},
		{"other config", convert.OCI, func(d *convert.Document, _ *[]convert.Layer) { d.Config = append(d.Config, ' ') }, kimg.ErrIntegrity, "size"},
		{"swapped config", convert.OCI, func(d *convert.Document, _ *[]convert.Layer) {
			d.Config = []byte(strings.Replace(string(d.Config), "arm64", "amd64", 1))
		}, kimg.ErrIntegrity, "blob-digest"},
		{"too few layers", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { *l = (*l)[:1] }, kimg.ErrInvalid, "count"},
		{"no layers", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { *l = []convert.Layer{} }, kimg.ErrInvalid, "count"},
		{"diff ID", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { (*l)[1].DiffID = diffA }, kimg.ErrIntegrity, "layers[1]: diff-id"},
		{"size", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { (*l)[0].Size = 2 }, kimg.ErrIntegrity, "layers[0]: size"},
		{"negative size", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { (*l)[0].Digest, (*l)[0].Size = diffC, -2 }, kimg.ErrInvalid, "size"},
		{"digest", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { (*l)[0].Digest = "sha256:" }, kimg.ErrInvalid, "digest"},
		{"layer type", convert.OCI, func(_ *convert.Document, l *[]convert.Layer) { (*l)[0].MediaType = "text/plain" }, kimg.ErrUnsupported, "media-type"},
		{"encrypted", convert.OCI, swap("tar+gzip", "tar+gzip+encrypted"), kimg.ErrUnsupported, "encrypted"},
		{"ambiguous", convert.OCI, swap(`"layers"`, `"manifests":[],"layers"`), kimg.ErrInvalid, "ambiguous"},
		{"foreign to v2s1", convert.DockerV2S1, swap("", ""), kimg.ErrUnsupported, "foreign"},
	} {
		doc, layers := richDocument(), given()
		c.change(&doc, &layers)
		out, report, err := convert.Convert(doc, c.to, layers, convert.Options{})
		if kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) || out.Manifest != nil || out.Config != nil || report != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Without Docker's members an OCI configuration has what OCI defines, each loss is reported, and the strictest reader
// has nothing to say against it.
func TestDockerDrop(t *testing.T) {
	drop := convert.Options{DockerFields: convert.DockerDrop}
	for _, from := range formats {
		doc := document(t, from, dockerConfig, 2)
		out, report, err := convert.Convert(doc, convert.OCI, nil, drop)
		if err != nil {
			t.Fatal(err)
		}
		validSchema(t, "config-schema.json", out.Config, false)
		want := strings.Fields(`lost:future lost:config.Hostname lost:config.Domainname lost:config.AttachStdin lost:config.Healthcheck
			lost:config.Image changed:config.Volumes changed:config.Entrypoint lost:config.OnBuild lost:config.StopTimeout lost:config.Shell lost:config.Gpus
			lost:container lost:container_config lost:docker_version lost:comment lost:history[0].note lost:parent lost:rootfs.extra`)
		var got []string
		for _, c := range report {
			got = append(got, string(c.Kind)+":"+c.Path)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		var meant, said ispec.Image
		if err := json.Unmarshal([]byte(strings.Replace(dockerConfig, `"sh -c true"`, `["sh -c true"]`, 1)), &meant); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Config, &said); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(meant, said, same); d != "" {
			t.Error(d)
		}
		if !strings.Contains(string(out.Config), `"2016-09-23T23:20:45.100000000+02:00"`) {
			t.Error("a date has another text")
		}
		// Nothing to drop: nothing changes.
		if again, report, err := convert.Convert(out, convert.OCI, nil, drop); err != nil || report != nil || string(again.Config) != string(out.Config) || string(again.Manifest) != string(out.Manifest) {
			t.Errorf("%v %v", err, report)
		}
	}
	// The way to Docker drops nothing.
	if out, report, err := convert.Convert(document(t, convert.OCI, dockerConfig, 2), convert.DockerV2S2, nil, drop); err != nil || report != nil || string(out.Config) != dockerConfig {
		t.Errorf("%v %v", err, report)
	}
	// A copy of the configuration inside the manifest goes with the configuration.
	doc := richDocument()
	doc.Config = []byte(strings.Replace(string(doc.Config), `{`, `{"x":1,`, 1))
	d := descriptor(string(doc.Config))
	text := strings.Replace(string(doc.Manifest), string(descriptor(string(richDocument().Config)).Digest), string(d.Digest), 1)
	text = strings.Replace(text, `"size": `+jsonText(len(richDocument().Config)), `"size": `+jsonText(d.Size), 1)
	doc.Manifest = []byte(strings.Replace(text, jsonText(richDocument().Config), jsonText(doc.Config), 1))
	out, report, err := convert.Convert(doc, convert.OCI, nil, drop)
	if d := cmp.Diff([]string{"lost config.data", "lost config.urls", "lost x"}, lines(report)); err != nil || d != "" {
		t.Error(err, d)
	}
	if _, err := convert.Parse(out, nil); err != nil || string(out.Config) != string(richDocument().Config) {
		t.Errorf("%v %s", err, out.Config)
	}
}

// A document at the limit has no room for what a conversion adds: that is refused, as reading it would be.
func TestConvertAtTheLimit(t *testing.T) {
	const old = `{"rootfs":{"type":"layers","diff_ids":null},"x":""}`
	config := strings.Replace(old, `""`, `"`+strings.Repeat("x", 4<<20-len(old))+`"`, 1)
	doc := document(t, convert.DockerV2S2, config, 0)
	if _, _, err := convert.Convert(doc, convert.DockerV2S2, nil, convert.Options{}); err != nil {
		t.Fatal(err)
	}
	if out, _, err := convert.Convert(doc, convert.OCI, nil, convert.Options{}); kimg.ClassOf(err) != kimg.ErrLimit || out.Config != nil {
		t.Error(err)
	}
	small, _, err := convert.Convert(doc, convert.OCI, nil, convert.Options{DockerFields: convert.DockerDrop})
	if err != nil || len(small.Config) > 100 {
		t.Error(err)
	}
}
