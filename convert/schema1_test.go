package convert_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
)

func TestParseSchema1(t *testing.T) {
	doc := v1Doc(v1Good()...)
	got, err := convert.ParseSchema1([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	want := convert.Schema1{
		Name: "library/x", Tag: "1", Architecture: "arm64", Digest: digest.FromString(doc),
		Layers: []digest.Digest{blobA, blobB}, Empty: []digest.Digest{emptyBlob},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, other := range []string{dockerManifest, ociManifest, ociIndex} {
		if _, err := convert.ParseSchema1([]byte(other)); kimg.ClassOf(err) != kimg.ErrUnsupported {
			t.Error(err)
		}
		if d, err := convert.ManifestDigest([]byte(other)); err != nil || d != digest.FromString(other) {
			t.Error(d, err)
		}
	}
	if _, err := convert.ManifestDigest([]byte("[")); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error(err)
	}
}

// Of neighbours with one id the older one stays, also at the top, and whatever parent the newer one names.
func TestRepeatedEntries(t *testing.T) {
	good := v1Good()
	repeat := v1Text{blobA, strings.Replace(good[2].text, `"os":"linux"`, `"os":"never"`, 1)}
	odd := v1Text{blobB, `{"id":"` + hex64("1") + `","parent":"` + hex64("9") + `"}`}
	doc := v1Doc(good[0], odd, good[1], good[2], repeat, repeat)
	s, err := convert.ParseSchema1([]byte(doc))
	if err != nil || len(s.Layers) != 2 || s.Layers[1] != blobB || len(s.Empty) != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	out, report := fromV1(t, doc, convert.DockerV2S2, v1AtDestination(), convert.Options{})
	plain, _ := fromV1(t, v1Doc(good...), convert.DockerV2S2, v1AtDestination(), convert.Options{})
	if !bytes.Equal(out.Config, plain.Config) {
		t.Errorf("%s\n%s", out.Config, plain.Config)
	}
	if c := report[0]; c.Path != "history" || c.Kind != convert.Changed || !strings.HasSuffix(c.Why, ": 3") {
		t.Error(report)
	}
}

func TestEmptyLayer(t *testing.T) {
	blob, l := convert.EmptyLayer()
	if digest.FromBytes(blob) != l.Digest || l.Digest != emptyBlob || l.Size != 32 || len(blob) != 32 {
		t.Error(l)
	}
	r, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, make([]byte, 1024)) || digest.FromBytes(data) != l.DiffID {
		t.Error(data, err)
	}
}

// Each row of refused input: a good manifest with one change.
func TestRefusedSchema1(t *testing.T) {
	good := v1Good()
	doc := v1Doc(good...)
	entry := func(i int, old, new string) string {
		changed := v1Good()
		changed[i].text = strings.Replace(changed[i].text, old, new, 1)
		if changed[i] == good[i] {
			t.Fatalf("%q is not in entry %d", old, i)
		}
		return v1Doc(changed...)
	}
	text := func(i int, all string) string { return entry(i, good[i].text, all) }
	outer := func(old, new string) string {
		changed := strings.Replace(doc, old, new, 1)
		if changed == doc {
			t.Fatalf("%q is not there", old)
		}
		return changed
	}
	blob := func(i int, d string) string {
		changed := v1Good()
		changed[i].blob = d
		return v1Doc(changed...)
	}
	many := func(n int) string {
		var all []v1Text
		for range n {
			all = append(all, v1Text{blobA, `{"id":"` + hex64("1") + `"}`})
		}
		return v1Doc(all...)
	}
	for _, c := range []struct {
		name, doc string
		class     kimg.Class
		word      string
	}{
		{"large", doc + strings.Repeat(" ", 4<<20), kimg.ErrLimit, "too-big"},
		{"deep", outer(`"name"`, `"more":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`,"name"`), kimg.ErrLimit, "depth"},
		{"deep inside", entry(2, `"x":`, `"y":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`,"x":`), kimg.ErrLimit, "depth"},
		{"entries", many(501), kimg.ErrLimit, "too-big"},

		{"empty", "", kimg.ErrInvalid, "json"}, {"list", "[" + doc + "]", kimg.ErrInvalid, "json-type"}, {"more", doc + "{}", kimg.ErrInvalid, "json"},
		{"mark", "\xef\xbb\xbf" + doc, kimg.ErrInvalid, "json"}, {"cut", doc[:len(doc)-1], kimg.ErrInvalid, "json"},
		{"not text", outer("library", "\xff"), kimg.ErrInvalid, "json"},
		{"empty inside", text(0, ""), kimg.ErrInvalid, "json"}, {"more inside", text(0, good[0].text+"{}"), kimg.ErrInvalid, "json"},
		{"mark inside", text(2, "\ufeff"+good[2].text), kimg.ErrInvalid, "json"}, {"cut inside", text(2, good[2].text[:50]), kimg.ErrInvalid, "json"},
		{"half a character", entry(2, `"x"`, `"\ud800"`), kimg.ErrInvalid, "json"},

		{"name", outer(`"library/x"`, `1`), kimg.ErrInvalid, "json-type"}, {"tag", outer(`"tag":"1"`, `"tag":[]`), kimg.ErrInvalid, "json-type"},
		{"architecture", outer(`"arm64"`, `{}`), kimg.ErrInvalid, "json-type"}, {"layers", outer(`"fsLayers":[`, `"fsLayers":{},"more":[`), kimg.ErrInvalid, "json-type"},
		{"layer", outer(`"fsLayers":[`, `"fsLayers":[null,`), kimg.ErrInvalid, "json-type"}, {"history", outer(`"history":[`, `"history":"","more":[`), kimg.ErrInvalid, "json-type"},
		{"step", outer(`"history":[`, `"history":["x",`), kimg.ErrInvalid, "json-type"}, {"compatibility", outer(`{"v1Compatibility":`, `{"v1Compatibility":{},"more":`), kimg.ErrInvalid, "json-type"},
		{"null inside", text(0, "null"), kimg.ErrInvalid, "json-type"}, {"list inside", text(2, "[]"), kimg.ErrInvalid, "json-type"},
		{"id", entry(1, `"`+hex64("2")+`"`, "2"), kimg.ErrInvalid, "json-type"}, {"throwaway", entry(1, "true", `"true"`), kimg.ErrInvalid, "json-type"},
		{"throwaway 1", entry(1, "true", `1`), kimg.ErrInvalid, "json-type"}, {"size", entry(2, `"Size":7`, `"Size":7.5`), kimg.ErrInvalid, "json-type"},
		{"config", entry(2, `"Hostname":""`, `"Env":"A=b"`), kimg.ErrInvalid, "json-type"}, {"command", entry(1, `"CMD"`, `7`), kimg.ErrInvalid, "json-type"},
		{"config list", entry(2, `"os":"linux"`, `"container_config":[]`), kimg.ErrInvalid, "json-type"},

		{"twice", outer(`"tag"`, `"tag":"1","tag"`), kimg.ErrInvalid, "duplicate-key"}, {"case", outer(`"fsLayers"`, `"FSLAYERS":[],"fsLayers"`), kimg.ErrInvalid, "duplicate-key"},
		{"only case", outer(`"history"`, `"History"`), kimg.ErrInvalid, "duplicate-key"}, {"blob", outer(`"blobSum"`, `"blobsum":"","blobSum"`), kimg.ErrInvalid, "duplicate-key"},
		{"twice inside", entry(1, `"throwaway":true`, `"throwaway":true,"throwaway":false`), kimg.ErrInvalid, "duplicate-key"},
		{"case inside", entry(1, `"throwaway":true`, `"throwaway":true,"ThrowAway":false`), kimg.ErrInvalid, "duplicate-key"},
		{"only case inside", entry(1, `"throwaway":true`, `"ThrowAway":true`), kimg.ErrInvalid, "duplicate-key"},
		{"parent in case", entry(1, `"parent"`, `"Parent"`), kimg.ErrInvalid, "duplicate-key"}, {"size in case", entry(2, `"Size"`, `"size"`), kimg.ErrInvalid, "duplicate-key"},
		{"config twice", entry(2, `"Hostname":""`, `"Hostname":"","hostname":"x"`), kimg.ErrInvalid, "duplicate-key"},
		{"rootfs in case", entry(2, `"x":`, `"RootFS":{},"y":`), kimg.ErrInvalid, "duplicate-key"},

		{"config member", outer(`"name"`, `"config":{},"name"`), kimg.ErrInvalid, "ambiguous"}, {"layers member", outer(`"name"`, `"layers":[],"name"`), kimg.ErrInvalid, "ambiguous"},
		{"manifests member", outer(`"name"`, `"manifests":null,"name"`), kimg.ErrInvalid, "ambiguous"}, {"any case", outer(`"name"`, `"LAYERS":[],"name"`), kimg.ErrInvalid, "ambiguous"},
		{"media type", outer(`"name"`, `"mediaType":"application/vnd.docker.distribution.manifest.v2+json","name"`), kimg.ErrInvalid, "media-type"},
		{"version", outer(`"schemaVersion":1`, `"schemaVersion":1.0`), kimg.ErrInvalid, "schema-version"}, {"version text", outer(`"schemaVersion":1`, `"schemaVersion":"1"`), kimg.ErrInvalid, "schema-version"},
		{"no version", outer(`"schemaVersion":1,`, ``), kimg.ErrInvalid, "schema-version"}, {"version 0", outer(`"schemaVersion":1`, `"schemaVersion":0`), kimg.ErrInvalid, "schema-version"},

		{"no layers", outer(`"fsLayers"`, `"more"`), kimg.ErrInvalid, "count"}, {"null layers", outer(`"fsLayers":[`, `"fsLayers":null,"more":[`), kimg.ErrInvalid, "count"},
		{"null history", outer(`"history":[`, `"history":null,"more":[`), kimg.ErrInvalid, "count"}, {"nothing", v1Doc(), kimg.ErrInvalid, "count"},
		{"more layers", outer(`"fsLayers":[`, `"fsLayers":[{"blobSum":"`+blobA+`"},`), kimg.ErrInvalid, "count"},
		{"fewer layers", outer(`,{"blobSum":"`+blobA+`"}`, ``), kimg.ErrInvalid, "count"},

		{"no id", entry(0, `"id"`, `"di"`), kimg.ErrInvalid, "v1-id"}, {"short id", entry(2, hex64("3"), hex64("3")[1:]), kimg.ErrInvalid, "v1-id"},
		{"upper id", entry(2, hex64("3"), strings.Repeat("A", 64)), kimg.ErrInvalid, "v1-id"}, {"line after id", entry(2, hex64("3")+`"`, hex64("3")+`\n"`), kimg.ErrInvalid, "v1-id"},
		{"path as id", entry(1, hex64("2"), "../../../../etc/passwd"), kimg.ErrInvalid, "v1-id"},
		{"base with parent", entry(0, `"created"`, `"parent":"`+hex64("0")+`","created"`), kimg.ErrInvalid, "parent-chain"},
		{"other parent", entry(2, `"parent":"`+hex64("2"), `"parent":"`+hex64("1")), kimg.ErrInvalid, "parent-chain"},
		{"no parent", entry(1, `"parent"`, `"tnerap"`), kimg.ErrInvalid, "parent-chain"},
		{"loop", text(2, `{"id":"`+hex64("1")+`","parent":"`+hex64("2")+`"}`), kimg.ErrInvalid, "duplicate-id"},

		{"no blob", blob(0, ""), kimg.ErrInvalid, "digest"}, {"tarsum", blob(0, "tarsum.v1+sha256:"+hex64("1")), kimg.ErrInvalid, "digest"},
		{"md5", blob(2, "md5:"+strings.Repeat("0", 32)), kimg.ErrInvalid, "digest"}, {"upper", blob(0, "sha256:"+strings.Repeat("A", 64)), kimg.ErrInvalid, "digest"},
		{"length", blob(0, "sha512:"+hex64("1")), kimg.ErrInvalid, "digest"}, {"path", blob(0, "../../etc"), kimg.ErrInvalid, "digest"}, {"throwaway blob", blob(1, "x"), kimg.ErrInvalid, "digest"},

		{"no zone", entry(0, "00.100000000Z", "00"), kimg.ErrInvalid, "timestamp"}, {"number", entry(2, `"2016-01-03T00:00:00Z"`, "7"), kimg.ErrInvalid, "timestamp"},
		{"leap second", entry(2, "T00:00:00Z", "T23:59:60Z"), kimg.ErrInvalid, "timestamp"}, {"year", entry(1, "2016-", "12016-"), kimg.ErrInvalid, "timestamp"},
	} {
		for _, signed := range []bool{false, true} {
			doc := c.doc
			if signed {
				if len(doc) < 100 || !strings.HasPrefix(doc, "{") || !strings.HasSuffix(doc, "}") || strings.HasSuffix(doc, "{}") {
					continue
				}
				doc = sign(doc, signature{})
			}
			_, err := convert.ParseSchema1([]byte(doc))
			if c.name == "rootfs in case" { // seen when the configuration is made
				_, err = convert.Parse(convert.Document{Manifest: []byte(doc)}, []digest.Digest{diffA, diffB})
			}
			if kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), ": "+c.word+": ") {
				t.Errorf("%s (signed: %v): %v", c.name, signed, err)
				continue
			}
			oneLine(t, err)
			for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2, convert.DockerV2S1} {
				if c.name == "rootfs in case" && to == convert.DockerV2S1 {
					continue
				}
				if out, report, err := convert.Convert(convert.Document{Manifest: []byte(doc)}, to, v1AtDestination(), convert.Options{}); kimg.ClassOf(err) != c.class || out.Manifest != nil || report != nil {
					t.Errorf("%s: converted to %s: %v", c.name, to, err)
				}
			}
		}
	}
}
