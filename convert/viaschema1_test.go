package convert_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// Schema 2 or OCI to schema 1 and back: the same layers, the same number of steps with the same flags, and of the rest
// all that no report names. The same holds for the next round.
func TestViaSchema1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.SampledFrom(formats).Draw(t, "format")
		config := anySource(t)
		var img docker.Image
		if err := json.Unmarshal([]byte(config), &img); err != nil {
			t.Fatal(err)
		}
		doc := document(t, from, config, len(img.RootFS.DiffIDs))
		v1, r1 := converted(t, doc, convert.DockerV2S1, nil)
		m, err := convert.ParseSchema1(v1.Manifest)
		if err != nil || len(m.Layers) != len(img.RootFS.DiffIDs) || m.Name != "a/b" {
			t.Fatal(err, m)
		}
		layers := make([]convert.Layer, len(m.Layers))
		for i, d := range m.Layers {
			layers[i] = convert.Layer{DiffID: img.RootFS.DiffIDs[i], Digest: d, Size: int64(i)}
		}
		back, r2 := converted(t, v1, convert.DockerV2S2, layers)
		c, err := convert.Parse(back, img.RootFS.DiffIDs)
		if err != nil {
			t.Fatal(err)
		}
		was, is := img.History, c.Docker().History
		if len(was) == 0 {
			was = make([]docker.History, max(1, len(layers)))
			was[0].EmptyLayer = len(layers) == 0
		}
		if len(was) != len(is) {
			t.Fatalf("%d steps became %d", len(was), len(is))
		}
		for i := range was {
			if was[i].EmptyLayer != is[i].EmptyLayer {
				t.Fatalf("step %d", i)
			}
		}
		all := append(r1, r2...)
		if d := cmp.Diff(rest(t, []byte(config), all), rest(t, back.Config, all)); d != "" {
			t.Fatalf("%v\n%s", all, d)
		}
		again, r3 := converted(t, back, convert.DockerV2S1, nil)
		twice, r4 := converted(t, again, convert.DockerV2S2, layers)
		all = append(r3, r4...)
		if d := cmp.Diff(rest(t, back.Config, all), rest(t, twice.Config, all)); d != "" {
			t.Fatalf("%v\n%s", all, d)
		}
	})
}

func converted(t fataler, doc convert.Document, to convert.Format, layers []convert.Layer) (convert.Document, convert.Report) {
	t.Helper()
	out, report, err := convert.Convert(doc, to, layers, convert.Options{Name: "a/b", Tag: "c"})
	if err != nil {
		t.Fatal(err)
	}
	return out, report
}
