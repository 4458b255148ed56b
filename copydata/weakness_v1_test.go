package copydata_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/testimage"
)

func schema1(o testimage.V1Options) (copydata.Origin, testimage.V1) {
	v := testimage.NewV1(o)
	origin := copydata.Origin{ImageName: "old", ImageID: imgID, Manifest: v.Manifest, DiffIDs: []digest.Digest{}}
	for _, id := range v.DiffIDs() {
		origin.DiffIDs = append(origin.DiffIDs, digest.Digest(id))
	}
	return origin, v
}

func TestWeaknessMakeDockerV2S1Image(t *testing.T) {
	o, v := schema1(testimage.V1Options{Seed: 1, Layers: 3, Empty: 2, DockerVersion: "-", Signed: true})
	c, dir := saved(t, o) // without docker_version
	again, _ := saved(t, o)
	if !bytes.Equal(document(t, c, convert.OCI), document(t, again, convert.OCI)) {
		t.Error("not reproducible")
	}
	history := c.Config().Docker().History
	if len(history) != 5 || len(v.History) != 5 {
		t.Fatalf("%d entries, the manifest has %d", len(history), len(v.History))
	}
	for i, h := range history { // the manifest is newest first, this is oldest first
		var said docker.V1Image
		text, err := json.Marshal(v.History[i].JSON)
		if err := errors.Join(err, json.Unmarshal(text, &said)); err != nil {
			t.Fatal(err)
		}
		var by string
		if said.ContainerConfig != nil {
			by = strings.Join(said.ContainerConfig.Cmd, " ")
		}
		if h.CreatedBy != by || h.EmptyLayer != v.History[i].Empty || h.Author != said.Author || h.Comment != said.Comment || said.Created != nil && !h.Created.Equal(*said.Created) {
			t.Errorf("history[%d]: %+v of %s", i, h, text)
		}
		if strings.HasPrefix(h.CreatedBy, "[") {
			t.Errorf("created_by %q", h.CreatedBy)
		}
	}
	if _, err := convert.VerifyJWS(v.Manifest); err != nil {
		t.Error(err)
	}
	if got := load(t, dir).Source(); got.Format != convert.DockerV2S1 || !bytes.Equal(got.Manifest, v.Manifest) || got.Config != nil {
		t.Error("the source changed")
	}
	change := func(fn func(m map[string]any)) copydata.Origin {
		o, v := schema1(testimage.V1Options{Seed: 1, Layers: 3})
		m := members(t, v.Manifest)
		fn(m)
		o.Manifest, _ = json.Marshal(m)
		return o
	}
	for name, bad := range map[string]copydata.Origin{
		"counts": change(func(m map[string]any) { m["fsLayers"] = m["fsLayers"].([]any)[1:] }),
		"chain": change(func(m map[string]any) {
			h := m["history"].([]any)
			h[0], h[1] = h[1], h[0]
		}),
		"not JSON": change(func(m map[string]any) { m["history"].([]any)[1] = map[string]any{"v1Compatibility": "x"} }),
		"date": change(func(m map[string]any) {
			e := m["history"].([]any)[0].(map[string]any)
			e["v1Compatibility"] = strings.Replace(e["v1Compatibility"].(string), `"created":"`, `"created":"x`, 1)
		}),
	} {
		if _, err := copydata.New(bad, ctr, ""); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A layer that is empty by content, not by flag: whoever knows the blobs can say so.
	o, _ = schema1(testimage.V1Options{Seed: 3, Layers: 2})
	_, empty := convert.EmptyLayer()
	empty.Empty = true
	layers := []convert.Layer{{DiffID: o.DiffIDs[0], Digest: diffA, Size: 1}, empty}
	doc, _, err := convert.Convert(convert.Document{Manifest: o.Manifest}, convert.OCI, layers, convert.Options{EmptyLayers: convert.EmptyContent})
	if err != nil {
		t.Fatal(err)
	}
	got, err := convert.Parse(doc, o.DiffIDs[:1])
	if err != nil || !got.Docker().History[1].EmptyLayer {
		t.Errorf("%v %+v", err, got.Docker().History)
	}
}

func TestWeaknessV2S1WithoutDiffIDs(t *testing.T) {
	o, _ := schema1(testimage.V1Options{Seed: 2, Layers: 2, Empty: 1})
	c, dir := saved(t, o)
	for range 2 {
		if got := c.Config().OCI().RootFS.DiffIDs; !reflect.DeepEqual(got, o.DiffIDs) {
			t.Errorf("%v", got)
		}
		err := c.Update(func(s *copydata.Settings) error { s.Image.Author += "x"; return nil })
		if err := errors.Join(err, c.Save(dir)); err != nil {
			t.Fatal(err)
		}
		c = load(t, dir)
	}
	for _, ids := range [][]digest.Digest{nil, {}, o.DiffIDs[:1], append(o.DiffIDs[:2:2], diffA)} {
		bad := o
		bad.DiffIDs = ids
		if _, err := copydata.New(bad, ctr, ""); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%d diff IDs: %v", len(ids), err)
		}
	}
	// The file cannot lose them either.
	for _, change := range []string{`null`, `[]`, `["x"]`, `"x"`, `{}`, `["` + diffA + `"]`} {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(content(t, dir), &m); err != nil {
			t.Fatal(err)
		}
		m["diff-ids"] = json.RawMessage(change)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, "diff-ids "+change, data)
	}
}
