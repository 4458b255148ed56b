package convert_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/kimg/kimg/convert"
)

// anyV1 makes a schema 1 image, as old and new releases of Docker and others wrote them, and its layers.
func anyV1(t *rapid.T) (manifest string, layers []convert.Layer) {
	var entries []v1Text
	parent := ""
	n := rapid.IntRange(1, 5).Draw(t, "entries")
	for i := range n {
		e := map[string]any{"id": digest.FromString(fmt.Sprint(i, parent)).Encoded()}
		if parent != "" {
			e["parent"] = parent
		}
		parent = e["id"].(string)
		some := func(name string, value any) {
			if rapid.Bool().Draw(t, name) {
				e[name] = value
			}
		}
		blob := digest.FromString(fmt.Sprint("blob", rapid.IntRange(0, 2).Draw(t, "blob")))
		if rapid.Bool().Draw(t, "throwaway") {
			e["throwaway"] = true
		} else {
			layers = append(layers, convert.Layer{DiffID: digest.FromString("of " + string(blob)), Digest: blob, Size: 7, Empty: rapid.Bool().Draw(t, "empty")})
		}
		some("created", when.Draw(t, "at"))
		some("author", word.Draw(t, "author"))
		some("comment", word.Draw(t, "comment"))
		some("Size", rapid.Int64().Draw(t, "size"))
		some("parent_id", word.Draw(t, "parent id"))
		some("container_config", map[string]any{"Cmd": words.Draw(t, "cmd")})
		if i == n-1 || rapid.IntRange(0, 3).Draw(t, "full") == 0 {
			some("docker_version", rapid.SampledFrom([]string{"1.6.2", "dev", "1.8.3", "18.09.7"}).Draw(t, "version"))
			some("config", anyConfig(t))
			some("container_config", anyConfig(t))
			some("os", word.Draw(t, "os"))
			some("architecture", word.Draw(t, "arch"))
			some("os.version", word.Draw(t, "os version"))
			some("x-unknown", json.RawMessage(`[1.50,{"<":1e999}]`))
			some("rootfs", word.Draw(t, "rootfs"))
		}
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, v1Text{string(blob), string(raw)})
	}
	manifest = v1Doc(entries...)
	if rapid.Bool().Draw(t, "signed") {
		manifest = sign(manifest, signature{})
	}
	return manifest, layers
}

// Schema 1 to schema 2, back, and again: what no report names is as it was, and so is every layer.
func TestSchema1ThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		manifest, layers := anyV1(t)
		o := convert.Options{
			ExactDockerID: rapid.Bool().Draw(t, "exact"), EmptyLayers: rapid.SampledFrom([]convert.Mode{convert.EmptyFlag, convert.EmptyContent}).Draw(t, "mode"),
		}
		step := func(doc convert.Document, to convert.Format, layers []convert.Layer) (convert.Document, convert.Report) {
			out, report, err := convert.Convert(doc, to, layers, o)
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, doc.Manifest, doc.Config)
			}
			return out, report
		}
		first, _ := step(convert.Document{Manifest: []byte(manifest)}, convert.DockerV2S2, layers)
		view, err := convert.ParseManifest(first.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		c, err := convert.Parse(first, nil)
		if err != nil {
			t.Fatal(err)
		}
		back, r2 := step(first, convert.DockerV2S1, nil)
		s, err := convert.ParseSchema1(back.Manifest)
		if err != nil || len(s.Layers) != len(view.Layers) {
			t.Fatal(err)
		}
		var kept []convert.Layer
		for i, id := range c.Docker().RootFS.DiffIDs {
			if s.Layers[i] != view.Layers[i].Digest {
				t.Fatal("layers in another order")
			}
			kept = append(kept, convert.Layer{DiffID: id, Digest: s.Layers[i], Size: 7})
		}
		second, r3 := step(back, convert.DockerV2S2, kept)
		said := append(r2, r3...)
		if want, got := rest(t, first.Config, said), rest(t, second.Config, said); want != got {
			t.Fatalf("%v\n%s\n%s\nby %s", said, want, got, back.Manifest)
		}
		if !bytes.Equal(first.Manifest, second.Manifest) && bytes.Equal(first.Config, second.Config) {
			t.Fatalf("%s\n%s", first.Manifest, second.Manifest)
		}
		// From here on nothing changes any more, but that more may be named.
		again, _ := step(second, convert.DockerV2S1, nil)
		third, _ := step(again, convert.DockerV2S2, kept)
		if !o.ExactDockerID && !bytes.Equal(second.Config, third.Config) {
			t.Fatalf("%s\n%s", second.Config, third.Config)
		}
	})
}

// Schema 2 and OCI to schema 1 and back.
func TestToSchema1AndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := anySource(t)
		c, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: []byte(config)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids := c.Docker().RootFS.DiffIDs
		doc := document(t, convert.DockerV2S2, config, len(ids))
		there, r1, err := convert.Convert(doc, convert.DockerV2S1, nil, convert.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := convert.ParseSchema1(there.Manifest)
		if err != nil || len(s.Layers) != len(ids) {
			t.Fatal(err, len(s.Layers))
		}
		layers := []convert.Layer{}
		for i, id := range ids {
			layers = append(layers, convert.Layer{DiffID: id, Digest: s.Layers[i], Size: int64(i)})
		}
		back, r2, err := convert.Convert(there, convert.DockerV2S2, layers, convert.Options{})
		if err != nil {
			t.Fatal(err)
		}
		said := append(r1, r2...)
		if want, got := rest(t, []byte(config), said), rest(t, back.Config, said); want != got {
			t.Fatalf("%v\n%s\n%s\nby %s", said, want, got, there.Manifest)
		}
		if string(back.Manifest) == string(doc.Manifest) && string(back.Config) != config {
			t.Fatal("one manifest, two configurations")
		}
	})
}
