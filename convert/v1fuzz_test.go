package convert_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

// FuzzSchema1: no panic; a manifest that is accepted gives an image in both other formats, and comes back from there
// with the same layers and the same configuration, but for what the reports name.
func FuzzSchema1(f *testing.F) {
	good := v1Good()
	for _, seed := range []string{
		v1Doc(good...), sign(v1Doc(good...), signature{}), v1Doc(good[:1]...), v1Doc(good[0], v1Text{blobB, good[0].text}),
		string(testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 2, Empty: 1, Signed: true}).Manifest),
		string(testimage.NewV1(testimage.V1Options{Seed: 2, Layers: 2, Old: true, DockerVersion: "1.6.0"}).Manifest),
		v1Manifest, `{"schemaVersion":1,"fsLayers":null,"history":null}`, strings.Replace(v1Doc(good...), `"name"`, `"Layers":0,"name"`, 1),
	} {
		f.Add([]byte(seed), false, false)
		f.Add([]byte(seed), true, true)
	}
	f.Fuzz(func(t *testing.T, manifest []byte, exact, content bool) {
		s, err := convert.ParseSchema1(manifest)
		if err != nil {
			oneLine(t, err)
			return
		}
		if f, err := convert.Detect(manifest, ""); err != nil || f != convert.DockerV2S1 {
			t.Fatal(f, err)
		}
		if d, err := convert.ManifestDigest(manifest); err != nil || d != s.Digest || !s.Signed && d != digest.FromBytes(manifest) {
			t.Fatal(d, err)
		}
		o := convert.Options{ExactDockerID: exact}
		if content {
			o.EmptyLayers = convert.EmptyContent
		}
		thereAndBackV1(t, manifest, s, o)
	})
}

// thereAndBackV1 converts a good schema 1 manifest to all formats and back. An image at the very limit may have no room
// for what a format adds.
func thereAndBackV1(t *testing.T, manifest []byte, s convert.Schema1, o convert.Options) {
	t.Helper()
	layers := []convert.Layer{}
	for i, d := range s.Layers {
		layers = append(layers, convert.Layer{DiffID: digest.FromString("of " + string(d)), Digest: d, Size: 7, Empty: i%3 == 1})
	}
	try := func(doc convert.Document, to convert.Format, layers []convert.Layer) (convert.Document, convert.Report, bool) {
		out, report, err := convert.Convert(doc, to, layers, o)
		if err != nil {
			oneLine(t, err)
			// Some members mean nothing in schema 1 and something beside the ones that schema 2 adds.
			if kimg.ClassOf(err) != kimg.ErrLimit && !(kimg.ClassOf(err) == kimg.ErrInvalid && strings.Contains(err.Error(), "duplicate-key: ")) {
				t.Fatalf("to %s: %v\n%s\n%s", to, err, doc.Manifest, doc.Config)
			}
		}
		return out, report, err == nil
	}
	if same, report, err := convert.Convert(convert.Document{Manifest: manifest}, convert.DockerV2S1, nil, o); err != nil || report != nil || !bytes.Equal(same.Manifest, manifest) {
		t.Fatal("changed without need", err)
	}
	if moved, _, ok := try(convert.Document{Manifest: manifest}, convert.DockerV2S1, layers); ok {
		again, err := convert.ParseSchema1(moved.Manifest)
		if err != nil || !slices.Equal(again.Layers, s.Layers) || len(again.Empty) != len(s.Empty) {
			t.Fatal(err)
		}
	}
	first, _, ok := try(convert.Document{Manifest: manifest}, convert.DockerV2S2, layers)
	if !ok {
		return
	}
	if oci, _, ok := try(convert.Document{Manifest: manifest}, convert.OCI, layers); ok {
		if _, err := convert.Parse(oci, nil); err != nil {
			t.Fatal(err)
		}
	}
	c, err := convert.Parse(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	back, said, ok := try(first, convert.DockerV2S1, nil)
	if !ok {
		return
	}
	s, err = convert.ParseSchema1(back.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	layers = layers[:0]
	for i, id := range c.Docker().RootFS.DiffIDs {
		layers = append(layers, convert.Layer{DiffID: id, Digest: s.Layers[i], Size: 7})
	}
	second, more, ok := try(back, convert.DockerV2S2, layers)
	if !ok {
		return
	}
	said = append(said, more...)
	if want, got := rest(t, first.Config, said), rest(t, second.Config, said); want != got {
		t.Fatalf("%v\n%s\n%s\nby %s", said, want, got, back.Manifest)
	}
}

// FuzzV1Compatibility: the text of an entry, as the newest of an image and as an older one.
func FuzzV1Compatibility(f *testing.F) {
	good := v1Good()
	for _, seed := range []string{
		good[0].text, good[1].text, good[2].text, `{}`, `null`, `{"ID":"x"}`, `{"config":{"Cmd":"x","cmd":"y"}}`, `{"throwaway":true,"ThrowAway":false}`,
		`{"docker_version":"1.0","config":{"env":null,"New":{"A":1,"a":2}},"created":"0001-01-01T00:00:00Z"}`, `{"rootfs":1,"history":[],"container_config":null}`,
		`{"created":"2020-01-01T00:00:00.123456789123+23:59","author":"\u2028<>"}`, `{"Docker_Version":"1.0","Created":null,"OS":"x"}`,
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, exact bool) {
		if len(text) < 2 || text[0] != '{' {
			text = "{" + text
		}
		newest, sep := `{"id":"`+hex64("2")+`","parent":"`+hex64("1")+`"`, ","
		older := `{"id":"` + hex64("1") + `"`
		if strings.HasPrefix(strings.TrimLeft(text[1:], " \t\r\n"), "}") {
			sep = ""
		}
		for _, entries := range [][]v1Text{
			{{blobA, `{"id":"` + hex64("1") + `"}`}, {blobB, newest + sep + text[1:]}}, {{blobA, older + sep + text[1:]}, {blobB, newest + "}"}},
		} {
			doc := []byte(v1Doc(entries...))
			s, err := convert.ParseSchema1(doc)
			if err != nil {
				oneLine(t, err)
				continue
			}
			thereAndBackV1(t, doc, s, convert.Options{ExactDockerID: exact})
		}
	})
}

// FuzzJWS: no panic; of a signed manifest that is accepted, only the payload counts: it says the same without its
// signatures, under the same digest, and nothing that verifies has another payload.
func FuzzJWS(f *testing.F) {
	payload := v1Doc(v1Good()...)
	for _, seed := range []string{
		sign(payload, signature{}), sign(payload, signature{}, signature{}), string(testimage.NewV1(testimage.V1Options{Seed: 1, Signed: true}).Manifest),
		sign(payload, signature{protected: `{"formatLength":-1,"formatTail":"fQ"}`}), sign(payload, signature{protected: `{"formatLength":1e30}`}),
		strings.Replace(payload, `"name"`, `"signatures":[],"name"`, 1), strings.TrimSuffix(sign(payload, signature{}), "}") + `,"fsLayers":[]}`,
		sign(payload, signature{header: map[string]any{"alg": "RS256", "jwk": map[string]any{"kty": "RSA", "n": "AQAB", "e": "AQ"}}}),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		ids, err := convert.VerifyJWS(document)
		if err != nil {
			oneLine(t, err)
		}
		s, err2 := convert.ParseSchema1(document)
		if err2 != nil {
			oneLine(t, err2)
			return
		}
		if !s.Signed && err == nil || err == nil && len(ids) == 0 {
			t.Fatal("verified without a signature")
		}
		bare, _, err := convert.Convert(convert.Document{Manifest: document}, convert.DockerV2S1, nil, convert.Options{Name: s.Name + "x"})
		if err != nil {
			oneLine(t, err)
			return
		}
		again, err := convert.ParseSchema1(bare.Manifest)
		if err != nil || again.Signed {
			t.Fatal(err)
		}
		again.Name, again.Digest, again.Signed = s.Name, s.Digest, s.Signed
		if d := cmp.Diff(s, again); d != "" {
			t.Fatal(d)
		}
	})
}
