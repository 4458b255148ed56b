package convert_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/testimage"
)

// brief is a report without its reasons.
func brief(r convert.Report) string { return strings.Join(lines(r), "\n") }

// The configuration has its members sorted, its texts escaped and its dates printed as Docker does, byte for byte.
func TestSchema1Config(t *testing.T) {
	const want = `{"architecture":"amd64","config":{"Cmd":["\u003c\u0026\u003e"],"Hostname":""},"created":"2016-01-03T00:00:00Z",` +
		`"docker_version":"1.12.1","history":[{"created":"2016-01-01T00:00:00.1Z","author":"me","created_by":"/bin/sh -c ADD \u003cx\u003e"},` +
		`{"created":"2016-01-02T00:00:00+02:00","created_by":"CMD","empty_layer":true},{"created":"2016-01-03T00:00:00Z"}],` +
		`"os":"linux","rootfs":{"type":"layers","diff_ids":["` + diffA + `","` + diffB + `"]},"x":[1.0,{"a":null}]}`
	doc, report := fromV1(t, v1Doc(v1Good()...), convert.DockerV2S2, v1AtDestination(), convert.Options{})
	if d := cmp.Diff(want, string(doc.Config)); d != "" {
		t.Error(d)
	}
	if got := brief(report); got != "changed history[].v1Compatibility.container_config.Cmd" {
		t.Error(got)
	}
	signed, report := fromV1(t, sign(v1Doc(v1Good()...), signature{}), convert.DockerV2S2, v1AtDestination(), convert.Options{})
	if string(signed.Config) != want || string(signed.Manifest) != string(doc.Manifest) || report[0].Path != "signatures" {
		t.Error(report)
	}
}

// Image IDs as containers/image computes them for the same manifests. It was asked for all but the last, which it does
// not write anew as Docker does, and the one from which it drops members.
func TestDockerImageIDs(t *testing.T) {
	without := func(members ...string) func([]testimage.V1Entry) []testimage.V1Entry {
		return func(history []testimage.V1Entry) []testimage.V1Entry {
			for _, e := range history {
				for _, object := range []any{e.JSON, e.JSON["config"], e.JSON["container_config"]} {
					for _, name := range members {
						if o, ok := object.(map[string]any); ok {
							delete(o, name)
						}
					}
				}
			}
			return history
		}
	}
	check := without("Healthcheck") // which came later, and which containers/image writes in another order
	known := without("Healthcheck", "x-unknown", "X-Unknown", "Memory", "MemorySwap", "CpuShares", "Cpuset", "PortSpecs", "SecurityOpt", "VolumeDriver", "PublishService")
	for _, c := range []struct {
		name  string
		o     testimage.V1Options
		exact bool
		want  digest.Digest
	}{
		{"signed", testimage.V1Options{Seed: 11, Layers: 2, Empty: 3, Signed: true}, false, "sha256:57533c73f1f75a4baba529f428494ec201990bed7432a0cd67739ad45259338f"},
		{"not of a number", testimage.V1Options{Seed: 12, DockerVersion: "1.9.1-cs2"}, false, "sha256:5d14a66a90d400d7675c40d104fd66e2fd9a9392d0c3ec8f4b4656e2194229fb"},
		{"1.8.3", testimage.V1Options{Seed: 13, DockerVersion: "1.8.3"}, true, "sha256:7bf046699e096f99dc119f80c6d77b433adb7c4f32df438e77f474dcfa099eb6"},
		{"no version", testimage.V1Options{Seed: 14, DockerVersion: "-"}, false, "sha256:8ca785a57627d5dba16c14e349202285b60cc03e977810269c50d64c624095d3"},
		{"old, nothing lost", testimage.V1Options{Seed: 15, Layers: 2, Old: true, DockerVersion: "1.7.0", Change: known}, false, "sha256:534b03c1c67674e583f74ce2f8ef442e4d5373073c54014ec79b3bef4ebca2c9"},
		{"old, something lost", testimage.V1Options{Seed: 15, Layers: 2, Old: true, DockerVersion: "1.7.0", Change: check}, false, "sha256:e6cb30a077df61ac9f6a6d3803b2c2a0b0c13ca7422c783c87d69b038cc32666"},
		{"old, exact", testimage.V1Options{Seed: 15, Layers: 2, Old: true, DockerVersion: "1.7.0", Change: check}, true, "sha256:534b03c1c67674e583f74ce2f8ef442e4d5373073c54014ec79b3bef4ebca2c9"},
		{"candidate, exact", testimage.V1Options{Seed: 16, DockerVersion: "1.8.3-rc1", Change: check}, true, "sha256:6b1cc764c77e039d27d8ec70aca005d2acb6fdc3afa609bbc539ae2e3f605f9b"},
		{"name, exact", testimage.V1Options{Seed: 17, DockerVersion: "library-import", Change: check}, true, "sha256:a5c1851886f43819e6aedfb9f8faa8181c7ddf05ad483acdc558da8f02706d7f"},
		{"no version, exact", testimage.V1Options{Seed: 14, DockerVersion: "-"}, true, "sha256:c8670d36317dcdf0fa039e3b20f7579cbf2f566aa8209b857b48d53434e07a19"},
	} {
		img := testimage.NewV1(c.o)
		doc, report := fromV1(t, string(img.Manifest), convert.DockerV2S2, v1Layers(t, img), convert.Options{ExactDockerID: c.exact})
		if got := digest.FromBytes(doc.Config); got != c.want {
			t.Errorf("%s: %s\n%s", c.name, got, brief(report))
		}
	}
}

// Without the wish for Docker's image ID an old image loses nothing, with it the report names what Docker drops.
func TestReencoding(t *testing.T) {
	entry := func(version string) string {
		return v1Doc(v1Text{blobA, `{"id":"` + hex64("1") + `","created":"2014-01-01T00:00:00.50Z",` + version +
			`"config":{"Memory":5,"cmd":"sh","Labels":null,"New":{"a":0}},"os.version":"6","x":1e999,"MacAddress":"","Size":5}`})
	}
	for _, version := range []string{"1.8.2", "1.8", "1", "0.7.6", "1.8.3-rc1", "1.6.2.3", "dev", "1.08.2", " 9", "v2.0.0"} {
		doc := entry(`"docker_version":"` + version + `",`)
		kept, report := fromV1(t, doc, convert.DockerV2S2, v1AtDestination()[:1], convert.Options{})
		if brief(report) != "added container_config" {
			t.Errorf("%s: %s", version, brief(report))
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(kept.Config, &m); err != nil {
			t.Fatal(err)
		}
		if got := string(m["config"]); !strings.HasPrefix(got, `{"Memory":5,"Cmd":"sh","Labels":null,"New":{"a":0},"Hostname":""`) || string(m["x"]) != "1e999" || string(m["os.version"]) != `"6"` || string(m["created"]) != `"2014-01-01T00:00:00.50Z"` {
			t.Errorf("%s: %s", version, kept.Config)
		}
		exact, report := fromV1(t, doc, convert.DockerV2S2, v1AtDestination()[:1], convert.Options{ExactDockerID: true})
		if got := brief(report); got != "added container_config\nlost config.Memory\nlost config.New\nlost os.version\nlost x" && got != "added container_config\nlost config.Memory\nlost os.version\nlost x" {
			t.Errorf("%s: %s", version, got)
		}
		if strings.Contains(string(exact.Config), "Memory") || !strings.Contains(string(exact.Config), `"Cmd":["sh"]`) || !strings.Contains(string(exact.Config), `"created":"2014-01-01T00:00:00.5Z"`) {
			t.Errorf("%s: %s", version, exact.Config)
		}
	}
	for _, version := range []string{`"docker_version":"1.8.3",`, `"docker_version":"1.9.1-cs2",`, `"docker_version":"1.10",`, `"docker_version":"2",`, `"docker_version":"1.8.3.0",`} {
		for _, exact := range []bool{false, true} {
			doc, report := fromV1(t, entry(version), convert.DockerV2S2, v1AtDestination()[:1], convert.Options{ExactDockerID: exact})
			if report != nil || !strings.Contains(string(doc.Config), `"config":{"Memory":5,"cmd":"sh","Labels":null,"New":{"a":0}}`) {
				t.Errorf("%s: %v %s", version, report, doc.Config)
			}
		}
	}
	for exact, want := range map[bool]bool{false: false, true: true} {
		doc, _ := fromV1(t, entry(""), convert.DockerV2S2, v1AtDestination()[:1], convert.Options{ExactDockerID: exact})
		if strings.Contains(string(doc.Config), "Hostname") != want {
			t.Errorf("no version, exact %v: %s", exact, doc.Config)
		}
	}
}

// The flag decides what is empty, unless the content is asked too, and then for each entry by itself.
func TestEmptyLayers(t *testing.T) {
	entries := []v1Text{
		{blobA, `{"id":"` + hex64("1") + `","created":"2016-01-01T00:00:00Z"}`},
		{blobA, `{"id":"` + hex64("2") + `","parent":"` + hex64("1") + `","created":"2016-01-01T00:00:00Z","throwaway":true}`},
		{blobB, `{"id":"` + hex64("3") + `","parent":"` + hex64("2") + `","created":"2016-01-01T00:00:00Z","Size":0}`},
		{diffC, `{"id":"` + hex64("4") + `","parent":"` + hex64("3") + `","created":"2016-01-01T00:00:00Z","throwaway":true}`},
	}
	layers := v1AtDestination()
	layers[1].Empty = true
	for mode, want := range map[convert.Mode]string{convert.EmptyFlag: "warning fsLayers[2]\nwarning fsLayers[0]", convert.EmptyContent: "added history[2].empty_layer\nwarning fsLayers[2]\nwarning fsLayers[0]"} {
		doc, report := fromV1(t, v1Doc(entries...), convert.DockerV2S2, layers, convert.Options{EmptyLayers: mode})
		if brief(report) != want {
			t.Errorf("%v: %v", mode, report)
		}
		c, err := convert.Parse(doc, nil)
		if err != nil {
			t.Fatal(err)
		}
		var flags []bool
		for _, h := range c.Docker().History {
			flags = append(flags, h.EmptyLayer)
		}
		m, err := convert.ParseManifest(doc.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		content := mode == convert.EmptyContent
		if !slices.Equal(flags, []bool{false, true, content, true}) || len(m.Layers) != map[bool]int{false: 2, true: 1}[content] || len(c.Docker().RootFS.DiffIDs) != len(m.Layers) {
			t.Errorf("%v: %v, %d layers", mode, flags, len(m.Layers))
		}
	}
	none, _ := fromV1(t, v1Doc(v1Text{emptyBlob, `{"id":"` + hex64("1") + `","throwaway":true}`}), convert.DockerV2S2, nil, convert.Options{})
	if !strings.Contains(string(none.Config), `"diff_ids":[]`) || !strings.Contains(string(none.Manifest), `"layers":[]`) {
		t.Errorf("%s\n%s", none.Manifest, none.Config)
	}
}

// Nothing that an entry says disappears without a word.
func TestSchema1Report(t *testing.T) {
	older := `{"id":"` + hex64("1") + `","parent_id":"x","layer_id":"y","Size":3,"docker_version":"1.9","config":{"Env":["a"]},"container":"","architecture":"","container_config":{"Cmd":["a","b"],"Env":["c"],"Tty":false},"new":[0]}`
	newest := `{"id":"` + hex64("2") + `","parent":"` + hex64("1") + `","rootfs":{"type":"x"},"history":7,"docker_version":"1.9"}`
	manifest := strings.Replace(v1Doc(v1Text{blobA, older}, v1Text{blobB, newest}), `{"blobSum"`, `{"y":1,"blobSum"`, 1)
	manifest = strings.Replace(manifest, `"name"`, `"x":[],"mediaType":"`+docker.MediaTypeV1Manifest+`","name"`, 1)
	doc, report := fromV1(t, manifest, convert.OCI, v1AtDestination(), convert.Options{})
	const want = `lost x
lost fsLayers[0].y
added history[0].created
added history[1].created
lost history[].v1Compatibility.config
lost history[].v1Compatibility.container_config
changed history[].v1Compatibility.container_config.Cmd
lost history[].v1Compatibility.docker_version
lost history[].v1Compatibility.new
changed rootfs
changed history
added architecture
added os`
	if d := cmp.Diff(want, brief(report)); d != "" {
		t.Error(d)
	}
	if !strings.HasSuffix(string(doc.Config), `,"architecture":"arm64","os":"linux"}`) {
		t.Errorf("%s", doc.Config)
	}
}

// A schema 1 image is read as the schema 2 configuration it becomes, and is edited like any other.
func TestParseSchema1Image(t *testing.T) {
	doc := convert.Document{Format: convert.DockerV2S1, Manifest: []byte(v1Doc(v1Good()...))}
	ids := []digest.Digest{diffA, diffB}
	c, err := convert.Parse(doc, ids)
	if err != nil || c.Format() != convert.DockerV2S1 || c.Edited() {
		t.Fatal(err)
	}
	written, _ := fromV1(t, string(doc.Manifest), convert.DockerV2S2, v1AtDestination(), convert.Options{})
	if text(t, c, convert.DockerV2S2) != string(written.Config) || string(c.Source()) != string(written.Config) {
		t.Error(text(t, c, convert.DockerV2S2))
	}
	edited, err := c.Edit(func(i *docker.Image) error { i.Architecture, i.Config.User = "", "u"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.WithDocker([]byte(text(t, edited, convert.DockerV2S2)))
	if err != nil || again.OCI().Architecture != "arm64" || again.OCI().Config.User != "u" || edited.OCI().Architecture != "arm64" {
		t.Errorf("%v %+v", err, again.OCI())
	}
	for name, bad := range map[string]struct {
		doc  convert.Document
		ids  []digest.Digest
		word string
	}{
		"no ids": {doc, nil, "count: 0 layers are given"}, "fewer": {doc, ids[:1], "count: 1 layers"}, "no digest": {doc, []digest.Digest{diffA, ""}, "digest: "},
		"config": {convert.Document{Manifest: doc.Manifest, Config: []byte("{}")}, ids, "ambiguous: "}, "format": {convert.Document{Format: convert.OCI, Manifest: doc.Manifest}, ids, "media-type: "},
		"other": {convert.Document{Format: convert.DockerV2S1, Manifest: []byte(ociManifest)}, nil, "media-type: "},
	} {
		if _, err := convert.Parse(bad.doc, bad.ids); kimg.ClassOf(err) != kimg.ErrInvalid || !strings.Contains(err.Error(), bad.word) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
