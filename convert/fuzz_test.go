package convert_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// oneLine checks a refusal: one of the classes hostile input may cause, one line of bounded length.
func oneLine(t *testing.T, err error) {
	t.Helper()
	switch kimg.ClassOf(err) {
	case kimg.ErrInvalid, kimg.ErrLimit, kimg.ErrUnsupported, kimg.ErrIntegrity:
	default:
		t.Fatalf("class %s: %v", kimg.ClassOf(err), err)
	}
	if line := err.Error(); strings.ContainsAny(line, "\n\r\x00\x1b") || len(line) > 800 {
		t.Fatalf("not a line: %q", line)
	}
}

// FuzzDetect: no panic; a manifest that is accepted can be read in one way only, and a manifest written from what was
// read is read as the same.
func FuzzDetect(f *testing.F) {
	for _, seed := range []string{
		ociManifest, dockerManifest, v1Manifest, `{"schemaVersion":2,"manifests":[]}`, `{"schemaVersion":2,"config":{},"layers":[]}`,
		strings.Replace(ociManifest, `"layers"`, `"fsLayers":[],"layers"`, 1), `null`, `{}`, `{"schemaVersion":1e0}`,
		strings.Replace(ociManifest, `"layers"`, `"Layers":[],"layers"`, 1),
	} {
		f.Add([]byte(seed), "")
		f.Add([]byte(seed), docker.MediaTypeManifest)
	}
	f.Fuzz(func(t *testing.T, manifest []byte, hint string) {
		format, err := convert.Detect(manifest, hint)
		if err != nil {
			oneLine(t, err)
		}
		v, err2 := convert.ParseManifest(manifest)
		if err2 != nil {
			oneLine(t, err2)
			return
		}
		if err != nil && hint == "" || err == nil && v.Format != format {
			t.Fatalf("detected %q (%v), read as %s", format, err, v.Format)
		}
		data, _, err := convert.Manifest(v.Format, v.Config, v.Layers, v.Annotations)
		if err != nil {
			if kimg.ClassOf(err) == kimg.ErrUnsupported && bytes.Contains(manifest, []byte("zstd")) {
				return
			}
			t.Fatal(err)
		}
		again, err := convert.ParseManifest(data)
		if err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		for i := range v.Layers { // a manifest may borrow the other format's layer types; a new one never does
			if strings.HasSuffix(v.Layers[i].MediaType, "gzip") != strings.HasSuffix(again.Layers[i].MediaType, "gzip") {
				t.Fatalf("%s became %s", v.Layers[i].MediaType, again.Layers[i].MediaType)
			}
			v.Layers[i].MediaType, again.Layers[i].MediaType = "", ""
			if v.Format == convert.DockerV2S2 {
				v.Layers[i].Annotations = nil
			}
		}
		v.Unknown, v.Subject, v.ArtifactType = nil, nil, ""
		again.Unknown = nil
		if d := cmp.Diff(v, again, same); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzParse: no panic; an image that is accepted keeps its bytes, is written in both formats, read again as the same,
// and can be edited.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		dockerConfig, ociConfig, `{}`, `null`, `{"rootfs":{"type":"layers"}}`, `{"rootfs":{"type":"layers","diff_ids":null},"config":{"cmd":"x"}}`,
		`{"OS":"a","rootfs":{"type":"layers"},"history":[{"empty_layer":true,"created":"0001-01-01T00:00:00Z"}]}`,
		`{"rootfs":{"type":"layers"},"config":{"Labels":{"a":"1","A":"2"},"Healthcheck":{"interval":1}},"container_config":null}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, config []byte, oci bool) {
		format := convert.DockerV2S2
		if oci {
			format = convert.OCI
		}
		c, err := convert.Parse(convert.Document{Format: format, Config: config}, nil)
		if err != nil {
			oneLine(t, err)
			return
		}
		if data, report, err := c.JSON(format); err != nil || report != nil || !bytes.Equal(data, config) {
			t.Fatalf("%v %v\n%q\n%q", err, report, config, data)
		}
		for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			data, report, err := c.JSON(to)
			if err != nil {
				oneLine(t, err) // a document at the very limit has no room for what OCI adds
				return
			}
			if !json.Valid(data) || len(report) == 0 && !bytes.Equal(data, config) {
				t.Fatalf("changed without a report: %q", data)
			}
			again, err := convert.Parse(convert.Document{Format: to, Config: data}, nil)
			if err != nil {
				oneLine(t, err)
				t.Fatalf("%v in %q", err, data)
			}
			if d := cmp.Diff(c.OCI().Config, again.OCI().Config, same); d != "" {
				t.Fatal(d)
			}
			want, got := c.Docker(), again.Docker()
			if to == convert.OCI {
				want.OS, want.Architecture, got.OS, got.Architecture = "", "", "", ""
			}
			if d := cmp.Diff(want, got, same); d != "" {
				t.Fatal(d)
			}
		}
		img := c.Docker()
		edited, err := c.Edit(func(i *docker.Image) error { i.Author += "x"; return nil })
		if err != nil {
			oneLine(t, err)
			return
		}
		back, err := edited.Edit(func(i *docker.Image) error { *i = img; return nil })
		if err != nil || back.Edited() {
			t.Fatalf("taken back: %v", err)
		}
	})
}

// FuzzConvert: no panic; an image that is accepted is converted to the same thing twice, the result is accepted, and on
// the way back everything is as it was that neither report names.
func FuzzConvert(f *testing.F) {
	images, _ := sources(f)
	rich := richDocument()
	images["rich"], images["docker"] = rich, document(f, convert.DockerV2S2, dockerConfig, 2)
	for _, doc := range images {
		text := string(doc.Manifest)
		if doc.Config != nil {
			d := descriptor(string(doc.Config))
			text = strings.NewReplacer(string(d.Digest), "DIGEST", fmt.Sprintf(`"size": %d,`, d.Size), `"size":SIZE,`,
				fmt.Sprintf(`"size":%d,`, d.Size), `"size":SIZE,`, fmt.Sprintf(`"size": %d`+"\n", d.Size), `"size":SIZE`).Replace(text)
		}
		for n := range 6 {
			f.Add([]byte(text), doc.Config, uint8(n))
		}
	}
	f.Fuzz(func(t *testing.T, manifest, config []byte, choice uint8) {
		d := descriptor(string(config))
		manifest = []byte(strings.NewReplacer("DIGEST", string(d.Digest), "SIZE", fmt.Sprint(d.Size)).Replace(string(manifest)))
		doc := convert.Document{Manifest: manifest, Config: config}
		from, err := convert.Detect(manifest, "")
		if err != nil {
			oneLine(t, err)
			return
		}
		var layers []convert.Layer
		if from == convert.DockerV2S1 {
			doc.Config = nil
			s, err := convert.ParseSchema1(manifest)
			if err != nil {
				oneLine(t, err)
				return
			}
			layers = []convert.Layer{}
			for _, d := range s.Layers {
				layers = append(layers, convert.Layer{Digest: d, Size: 7, DiffID: d, MediaType: docker.MediaTypeLayerGzip})
			}
		}
		via := []convert.Format{convert.OCI, convert.DockerV2S2, convert.DockerV2S1}[choice%3]
		o := convert.Options{DockerFields: convert.Keep(choice / 3 % 2)}
		there, r1, err := convert.Convert(doc, via, layers, o)
		if err != nil {
			oneLine(t, err)
			return
		}
		again, r, err := convert.Convert(doc, via, layers, o)
		if err != nil || !bytes.Equal(again.Manifest, there.Manifest) || !bytes.Equal(again.Config, there.Config) || fmt.Sprint(r) != fmt.Sprint(r1) {
			t.Fatal("not the same twice", err)
		}
		if via == convert.DockerV2S1 {
			if _, err := convert.ParseSchema1(there.Manifest); err != nil {
				t.Fatal(err)
			}
			return
		}
		if _, err := convert.Parse(there, nil); err != nil {
			t.Fatal(err)
		}
		if from == via && len(r1) == 0 && (!bytes.Equal(there.Manifest, manifest) || !bytes.Equal(there.Config, config)) {
			t.Fatal("changed without a report")
		}
		if from == convert.DockerV2S1 {
			return
		}
		back, r2, err := convert.Convert(there, from, nil, convert.Options{})
		if err != nil {
			oneLine(t, err)
			return
		}
		all := append(r1, r2...)
		if want, got := rest(t, config, all), rest(t, back.Config, all); want != got {
			t.Fatalf("%v\n%s\n%s", all, want, got)
		}
		// Labels follow the format, and a new configuration has a new digest.
		others := []string{"mediaType", "config.mediaType", "config.digest", "config.size", "layers[].mediaType"}
		if want, got := rest(t, manifest, all, others...), rest(t, back.Manifest, all, others...); want != got {
			t.Fatalf("%v\n%s\n%s", all, want, got)
		}
	})
}
