package convert_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// toV1 writes a schema 1 manifest of a configuration that must be good for it, and returns its entries, base first.
func toV1(t *testing.T, f convert.Format, config string, o convert.Options) (convert.Document, convert.Report, []map[string]any) {
	t.Helper()
	var img docker.Image
	if err := json.Unmarshal([]byte(config), &img); err != nil {
		t.Fatal(err)
	}
	doc, report, err := convert.Convert(document(t, f, config, len(img.RootFS.DiffIDs)), convert.DockerV2S1, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	var m docker.V1Manifest
	if err := json.Unmarshal(doc.Manifest, &m); err != nil || doc.Config != nil {
		t.Fatal(err)
	}
	entries := make([]map[string]any, len(m.History))
	for i, h := range m.History {
		if err := json.Unmarshal([]byte(h.V1Compatibility), &entries[len(entries)-1-i]); err != nil {
			t.Fatal(err)
		}
	}
	return doc, report, entries
}

// The whole of a small image, with the ids that Docker makes: each of the digest of the blob and the id below, the
// newest also of the configuration.
func TestWriteSchema1(t *testing.T) {
	config := `{"os":"linux","architecture":"arm","parent":"sha256:aa","created":"2020-01-02T03:04:05.600Z","config":{"Cmd":["<"]},` +
		`"rootfs":{"type":"layers","diff_ids":["` + diffA + `","` + diffB + `"]},"history":[` +
		`{"created":"2020-01-01T00:00:00.10Z","created_by":"ADD <x>","author":"a","comment":"c"},{"created_by":"ENV","empty_layer":true,"created":null},{"created":"2020-01-02T05:04:05.6+02:00","created_by":"RUN"}]}`
	doc, report, _ := toV1(t, convert.DockerV2S2, config, convert.Options{Name: "library/x", Tag: "t"})
	blobs := []string{digest.FromString("0").Encoded(), emptyBlob[7:], digest.FromString("1").Encoded()}
	ids := make([]string, 3)
	below := ""
	for i, b := range blobs {
		text := b + " " + below
		if i == 2 {
			text += " " + config
		}
		ids[i] = digest.FromString(text).Encoded()
		below = ids[i]
	}
	want := docker.V1Manifest{SchemaVersion: 1, Name: "library/x", Tag: "t", Architecture: "arm"}
	for i, e := range []string{
		`{"architecture":"arm","config":{"Cmd":["<"]},"container_config":{"Cmd":["RUN"]},"created":"2020-01-02T03:04:05.600Z","id":"` + ids[2] + `","os":"linux","parent":"` + ids[1] + `"}`,
		`{"id":"` + ids[1] + `","parent":"` + ids[0] + `","container_config":{"Cmd":["ENV"]},"throwaway":true}`,
		`{"id":"` + ids[0] + `","comment":"c","created":"2020-01-01T00:00:00.10Z","container_config":{"Cmd":["ADD <x>"]},"author":"a"}`,
	} {
		want.FSLayers = append(want.FSLayers, docker.V1FSLayer{BlobSum: digest.Digest("sha256:" + blobs[2-i])})
		want.History = append(want.History, docker.V1History{V1Compatibility: e})
	}
	var got docker.V1Manifest
	if err := json.Unmarshal(doc.Manifest, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := brief(report); got != "lost parent\nadded container_config" {
		t.Error(got)
	}
	if !strings.HasPrefix(string(doc.Manifest), `{"schemaVersion":1,"name":"library/x","tag":"t","architecture":"arm","fsLayers":[{"blobSum":"`) {
		t.Errorf("%s", doc.Manifest)
	}
}

// Schema 1 has one place for the image and its newest step. What the image says there stays, and what the step says of
// its own is carried where there is room, and reported.
func TestNewestStep(t *testing.T) {
	const year = `"2020-01-02T03:04:05Z"`
	for _, c := range []struct{ image, step, report, top string }{
		{`"author":"a","comment":"c","created":` + year, `"author":"a","comment":"c","created":` + year, "", `author,comment,created`},
		{`"created":` + year, `"created":"2020-01-02T04:04:05+01:00"`, "", `created`},
		{``, `"author":"a","comment":"c","created":` + year, "added author\nadded comment\nadded created", `author,comment,created`},
		{`"author":"a","comment":"c","created":` + year, `"author":"b","comment":"","created":"2021-01-02T03:04:05Z"`, "changed history[0].author\nchanged history[0].comment\nchanged history[0].created", `author,comment,created`},
		{`"created":` + year, ``, "changed history[0].created", `created`},
		{``, `"created_by":"x"`, "added container_config", `container_config`},
		{`"container_config":null`, `"created_by":"x"`, "added container_config", `container_config`},
		{`"container_config":{"Cmd":null,"Tty":true}`, `"created_by":"x"`, "added container_config.Cmd", `container_config`},
		{`"container_config":{"Cmd":["x","y"]}`, `"created_by":"x y"`, "", `container_config`},
		{`"container_config":{"Cmd":["x"]}`, `"created_by":"y"`, "changed history[0].created_by", `container_config`},
		{`"container_config":{"Cmd":["x"]}`, ``, "changed history[0].created_by", `container_config`},
		{`"id":"x","PARENT":"y","parent_id":7,"Layer_ID":[1],"throwAway":false,"size":0`, ``, "lost Layer_ID\nlost id\nlost parent\nlost parent_id", ``},
	} {
		config := func(image, step string) string {
			sep := map[bool]string{true: "", false: ","}
			return `{"os":"l","architecture":"a",` + image + sep[image == ""] + `"rootfs":{"type":"layers","diff_ids":["` + diffA + `"]},"history":[{` + step + `}]}`
		}(c.image, c.step)
		doc, report, entries := toV1(t, convert.DockerV2S2, config, convert.Options{})
		report = onlyConfig(report)
		if got := brief(report); got != c.report && !(strings.Contains(c.image, "PARENT") && got == "changed parent\n"+c.report) {
			t.Errorf("%s + %s: %s", c.image, c.step, got)
		}
		top := entries[0]
		for name := range top {
			if !strings.Contains("id,os,architecture,"+c.top, name) {
				t.Errorf("%s + %s: has %s", c.image, c.step, name)
			}
		}
		for _, name := range strings.Split(c.top, ",") {
			if _, ok := top[name]; name != "" && !ok {
				t.Errorf("%s + %s: has no %s", c.image, c.step, name)
			}
		}
		if _, err := convert.Parse(doc, []digest.Digest{diffA}); err != nil {
			t.Error(err)
		}
	}
}

// onlyConfig leaves out what is said of the manifest.
func onlyConfig(r convert.Report) (rest convert.Report) {
	for _, c := range r {
		if !strings.HasPrefix(c.Path, "layers") {
			rest = append(rest, c)
		}
	}
	return rest
}

// Where the image has no history each layer is an entry, and where it has no layers either there is one entry.
func TestWriteWithoutHistory(t *testing.T) {
	doc, report, entries := toV1(t, convert.OCI, ociConfig, convert.Options{})
	if len(entries) != 1 || brief(report) != "added history" || entries[0]["throwaway"] != nil {
		t.Errorf("%s %v", doc.Manifest, report)
	}
	s, err := convert.ParseSchema1(doc.Manifest)
	if err != nil || len(s.Layers) != 1 || s.Empty != nil || s.Architecture != "arm64" {
		t.Errorf("%+v %v", s, err)
	}
	doc, report, entries = toV1(t, convert.DockerV2S2, `{"rootfs":{"type":"layers","diff_ids":null,"x":1}}`, convert.Options{})
	if len(entries) != 1 || brief(report) != "lost rootfs.x\nadded history" || entries[0]["throwaway"] != true {
		t.Errorf("%s %v", doc.Manifest, report)
	}
	if s, err := convert.ParseSchema1(doc.Manifest); err != nil || s.Layers != nil || s.Empty[0] != emptyBlob {
		t.Errorf("%+v %v", s, err)
	}
}

func TestNotForSchema1(t *testing.T) {
	steps := func(n int, step string) string {
		return `{"rootfs":{"type":"layers","diff_ids":[]},"history":[` + strings.TrimSuffix(strings.Repeat(step+",", n), ",") + `]}`
	}
	if _, _, entries := toV1(t, convert.DockerV2S2, steps(500, `{"empty_layer":true}`), convert.Options{}); len(entries) != 500 {
		t.Error(len(entries))
	}
	layer := func(mediaType string) []convert.Layer {
		return []convert.Layer{{Digest: blobA, Size: 1, MediaType: mediaType}, {Digest: blobB, Size: 1}}
	}
	for name, c := range map[string]struct {
		doc    convert.Document
		layers []convert.Layer
		o      convert.Options
		class  kimg.Class
		word   string
	}{
		"steps":      {document(t, convert.DockerV2S2, steps(501, `{"empty_layer":true}`), 0), nil, convert.Options{}, kimg.ErrLimit, "too-big: 501 history entries"},
		"grows":      {document(t, convert.DockerV2S2, steps(1, `{"empty_layer":true,"comment":"`+strings.Repeat(`\\`, 1<<20)+`"}`), 0), nil, convert.Options{}, kimg.ErrLimit, "too-big"},
		"zstd":       {document(t, convert.DockerV2S2, dockerConfig, 2), layer("application/vnd.oci.image.layer.v1.tar+zstd"), convert.Options{}, kimg.ErrUnsupported, "media-type"},
		"encrypted":  {document(t, convert.DockerV2S2, dockerConfig, 2), layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), convert.Options{}, kimg.ErrUnsupported, "media-type"},
		"few layers": {document(t, convert.DockerV2S2, dockerConfig, 2), layer("")[:1], convert.Options{}, kimg.ErrInvalid, "count"},
		"name":       {document(t, convert.DockerV2S2, dockerConfig, 2), nil, convert.Options{Name: "\xff"}, kimg.ErrInvalid, "json"},
	} {
		out, report, err := convert.Convert(c.doc, convert.DockerV2S1, c.layers, c.o)
		if kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) || out.Manifest != nil || report != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A schema 1 manifest that need not change keeps its bytes and signatures; one that does keeps the rest.
func TestSchema1ToSchema1(t *testing.T) {
	good := v1Good()
	payload := strings.Replace(v1Doc(good[0], good[1], good[2], v1Text{blobA, good[2].text}), `{"blobSum":"`+blobA+`"}]`, `{"blobSum":"`+blobA+`","x":1}]`, 1)
	payload = strings.Replace(payload, `"name"`, `"x":[1.0, 2],"name"`, 1)
	signed := sign(payload, signature{})
	at := v1AtDestination()
	for _, o := range []convert.Options{{}, {Name: "library/x", Tag: "1"}} {
		for _, layers := range [][]convert.Layer{nil, at} {
			doc, report, err := convert.Convert(convert.Document{Manifest: []byte(signed)}, convert.DockerV2S1, layers, o)
			if err != nil || string(doc.Manifest) != signed || report != nil {
				t.Errorf("%v %v", err, report)
			}
		}
	}
	at[0].Digest = diffC
	doc, report := fromV1(t, signed, convert.DockerV2S1, at, convert.Options{Name: "other", Tag: "1"})
	if got := brief(report); got != "changed name\nchanged fsLayers[3].blobSum\nchanged history\nwarning signatures" {
		t.Error(got)
	}
	want := strings.Replace(strings.Replace(v1Doc(good...), `{"blobSum":"`+blobA+`"}]`, `{"blobSum":"`+diffC+`","x":1}]`, 1), `"name":"library/x"`, `"x":[1.0, 2],"name":"other"`, 1)
	if d := cmp.Diff(want, string(doc.Manifest)); d != "" {
		t.Error(d)
	}
	// Blobs that nobody brings along are not named.
	good[1].blob = diffC
	for _, odd := range []string{v1Doc(good...), v1Doc(v1Good()[0], v1Good()[1], v1Good()[2], v1Text{diffC, good[2].text})} {
		doc, report := fromV1(t, odd, convert.DockerV2S1, v1AtDestination(), convert.Options{})
		if string(doc.Manifest) != v1Doc(v1Good()...) || len(report) != 1 {
			t.Errorf("%v %s", report, doc.Manifest)
		}
		if doc, _ := fromV1(t, odd, convert.DockerV2S1, nil, convert.Options{}); string(doc.Manifest) != odd {
			t.Errorf("%s", doc.Manifest)
		}
	}
	for name, bad := range map[string][]convert.Layer{
		"few": at[:1], "zstd": {{Digest: diffC, MediaType: "application/vnd.oci.image.layer.v1.tar+zstd"}, at[1]}, "digest": {{Digest: "x"}, at[1]},
	} {
		if doc, report, err := convert.Convert(convert.Document{Manifest: []byte(signed)}, convert.DockerV2S1, bad, convert.Options{}); err == nil || doc.Manifest != nil || report != nil {
			t.Error(name, "is taken")
		}
	}
	if _, _, err := convert.Convert(convert.Document{Manifest: []byte(signed)}, convert.DockerV2S1, nil, convert.Options{Tag: "\xff"}); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error(err)
	}
	long := fmt.Sprintf(`{"id":"%s","x":"%s"}`, hex64("1"), strings.Repeat("x", 4<<20-500))
	if doc, report, err := convert.Convert(convert.Document{Manifest: []byte(v1Doc(v1Text{blobA, long}))}, convert.DockerV2S1, nil, convert.Options{Name: strings.Repeat("n", 500)}); kimg.ClassOf(err) != kimg.ErrLimit || doc.Manifest != nil || report != nil {
		t.Error(err)
	}
}
