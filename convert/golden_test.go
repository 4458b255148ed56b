package convert_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

// update writes the golden files anew: go test ./convert -run Golden -update. Read the difference before you keep it.
var update = flag.Bool("update", false, "write the golden files anew")

// seed is what the sources in testdata/golden are made from.
const seed = 3

// sources makes one image in each format, which says all that the format can say.
func sources(t testing.TB) (images map[convert.Format]convert.Document, layers map[convert.Format][]convert.Layer) {
	v1 := testimage.NewV1(testimage.V1Options{Seed: seed, Layers: 2, Empty: 2, Signed: true, Compression: []string{"gzip", "plain"}})
	images = map[convert.Format]convert.Document{convert.DockerV2S1: {Manifest: v1.Manifest}}
	layers = map[convert.Format][]convert.Layer{convert.DockerV2S1: v1Layers(t, v1)}
	r := rand.New(rand.NewPCG(seed, 0))
	var ids []digest.Digest
	var described []ispec.Descriptor
	for i := range 2 {
		ids = append(ids, digest.FromString(fmt.Sprint("layer", seed, i)))
		described = append(described, ispec.Descriptor{
			MediaType: ispec.MediaTypeImageLayerGzip, Digest: digest.FromString(fmt.Sprint("blob", seed, i)), Size: r.Int64N(1 << 30),
			Annotations: map[string]string{"org.example.layer": fmt.Sprint(i)},
		})
	}
	history := []map[string]any{
		{"created": "2024-01-02T03:04:05.600000000Z", "created_by": "COPY . / # buildkit", "comment": "buildkit.dockerfile.v0"},
		{"created": "2024-01-02T03:04:06Z", "created_by": "ENV A=<b>", "empty_layer": true},
		{"created": "2024-01-02T03:04:07+02:00", "created_by": "RUN make", "author": "Someone"},
	}
	config := testimage.V1Config(seed)
	config["created"], config["docker_version"] = "2024-01-02T03:04:07.100Z", "20.10.24"
	config["container_config"] = map[string]any{"Cmd": []string{"/bin/sh", "-c", "#(nop) ", "CMD"}}
	config["rootfs"], config["history"] = map[string]any{"type": "layers", "diff_ids": ids}, history
	images[convert.DockerV2S2] = written(t, convert.DockerV2S2, config, nil, described)
	config = map[string]any{
		"created": "2024-01-02T03:04:07.100Z", "author": "Someone", "architecture": "arm", "variant": "v7", "os": "linux", "os.version": "6.1", "os.features": []string{"f"},
		"config": map[string]any{"User": "app", "Env": []string{"A=b"}, "Cmd": []string{"sh"}, "Labels": map[string]string{"a.b": "c"}, "StopSignal": "SIGINT"},
		"rootfs": config["rootfs"], "history": history, "x-unknown": json.Number("1.50"),
	}
	images[convert.OCI] = written(t, convert.OCI, config, map[string]any{
		"artifactType": "application/vnd.example.app", "annotations": map[string]string{"org.opencontainers.image.title": "t", "b": "2"},
		"subject": ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 9}, "x-new": true,
	}, described)
	return images, layers
}

// written writes a source.
func written(t testing.TB, f convert.Format, config, more map[string]any, layers []ispec.Descriptor) convert.Document {
	doc := convert.Document{Config: indented(t, config)}
	list := []convert.Layer{}
	for _, l := range layers {
		list = append(list, convert.Layer{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType, Annotations: l.Annotations})
	}
	var err error
	if doc.Manifest, _, err = convert.Manifest(f, descriptor(string(doc.Config)), list, nil); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(doc.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	for name, value := range more {
		m[name] = value
	}
	doc.Manifest = indented(t, m)
	return doc
}

func indented(t testing.TB, v any) []byte {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

// v1Layers are the layers of a schema 1 image as a destination that keeps them has them.
func v1Layers(t fataler, v testimage.V1) []convert.Layer {
	t.Helper()
	m, err := convert.ParseSchema1(v.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	_, empty := convert.EmptyLayer()
	facts := map[digest.Digest]convert.Layer{empty.Digest: empty}
	for _, l := range v.Layers {
		mediaType := ""
		if len(l.Blob) > 1 && l.Blob[0] == 0x1f && l.Blob[1] == 0x8b {
			mediaType = ispec.MediaTypeImageLayerGzip
		}
		facts[digest.Digest(l.Digest)] = convert.Layer{
			DiffID: digest.Digest(l.DiffID), Digest: digest.Digest(l.Digest), Size: int64(len(l.Blob)), MediaType: mediaType,
		}
	}
	layers := []convert.Layer{}
	for _, d := range m.Layers {
		layers = append(layers, facts[d])
	}
	return layers
}

// golden compares with a file of testdata/golden, which it writes first with -update. nil: there is no such file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if *update && got != nil {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if os.IsNotExist(err) && got == nil {
		return
	}
	if d := cmp.Diff(string(want), string(got)); err != nil || d != "" {
		t.Errorf("%s: %v %s", name, err, d)
	}
}

// Every conversion there is, as files that a person can read.
func TestGolden(t *testing.T) {
	images, layers := sources(t)
	options := convert.Options{Name: "library/golden", Tag: "3"}
	for from, doc := range images {
		golden(t, string(from)+".manifest.json", doc.Manifest)
		golden(t, string(from)+".config.json", doc.Config)
		for to := range images {
			if from == to {
				continue
			}
			out, report, err := convert.Convert(doc, to, layers[from], options)
			if err != nil {
				t.Fatal(from, to, err)
			}
			name := string(from) + "-to-" + string(to)
			golden(t, name+".manifest.json", out.Manifest)
			golden(t, name+".config.json", out.Config)
			text := []byte{}
			for _, c := range report {
				text = append(text, c.String()+"\n"...)
			}
			golden(t, name+".report.txt", text)
			if to == convert.OCI {
				validSchema(t, "config-schema.json", out.Config, false)
				validSchema(t, "image-manifest-schema.json", out.Manifest, false)
			}
		}
	}
	for name, c := range map[string]struct {
		source string
		to     convert.Format
	}{"index-to-list": {ociIndex, convert.DockerV2S2}, "list-to-index": {dockerList, convert.OCI}} {
		out, report, err := convert.ConvertIndex([]byte(c.source), c.to, moves())
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".source.json", []byte(c.source))
		golden(t, name+".json", out)
		text := []byte{}
		for _, c := range report {
			text = append(text, c.String()+"\n"...)
		}
		golden(t, name+".report.txt", text)
	}
}

// A schema 1 image gives the same OCI image by way of schema 2 as directly.
func TestSchema1ByWayOfSchema2(t *testing.T) {
	for n := range uint64(20) {
		v1 := testimage.NewV1(testimage.V1Options{Seed: n, Layers: int(n % 4), Empty: int(n % 3), Signed: n%2 == 0, Old: n%5 == 4, DockerVersion: []string{"", "-", "1.6.2", "dev"}[n%4]})
		doc := convert.Document{Manifest: v1.Manifest}
		direct, _, err := convert.Convert(doc, convert.OCI, v1Layers(t, v1), convert.Options{})
		if err != nil {
			t.Fatal(n, err)
		}
		via, _, err := convert.Convert(doc, convert.DockerV2S2, v1Layers(t, v1), convert.Options{})
		if err != nil {
			t.Fatal(n, err)
		}
		if via, _, err = convert.Convert(via, convert.OCI, nil, convert.Options{}); err != nil || string(via.Manifest) != string(direct.Manifest) || string(via.Config) != string(direct.Config) {
			t.Errorf("%d: %v\n%s\n%s", n, err, direct.Config, via.Config)
		}
		validSchema(t, "config-schema.json", direct.Config, true)
		validSchema(t, "image-manifest-schema.json", direct.Manifest, false)
	}
}

// Schema 2 and OCI say which steps have no layer: there is nothing to guess.
func TestEmptyByContent(t *testing.T) {
	doc := document(t, convert.DockerV2S2, ociConfig, 1)
	l := []convert.Layer{{Digest: digest.FromString("0"), Empty: true}}
	if out, report, err := convert.Convert(doc, convert.OCI, l, convert.Options{EmptyLayers: convert.EmptyContent}); err != nil || report != nil || string(out.Config) != ociConfig {
		t.Error(err, report)
	}
}
