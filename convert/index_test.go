package convert_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// An OCI index with all an entry can say: an image, an image of another kind, an attestation about the first, an
// artifact, and an attestation about an image elsewhere.
const ociIndex = `{ "schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
 {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + blobA + `","size":10,"urls":["https://example.org/m"],
  "annotations":{"a":"1"},"platform":{"architecture":"arm","os":"linux","os.version":"10","os.features":["f"],"variant":"v7","features":["sse4"],"new":1},"later":2},
 {"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"` + blobB + `","size":20,"artifactType":"application/vnd.oci.image.config.v1+json","platform":{"architecture":"amd64","os":"linux"}},
 {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + diffA + `","size":30,"platform":{"architecture":"unknown","os":"unknown"},
  "annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"` + blobA + `"}, "x":"y"},
 {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + diffB + `","size":40,"artifactType":"application/vnd.example"},
 {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + diffC + `","size":50,"platform":{"architecture":"unknown","os":"unknown"},
  "annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"` + diffC + `"}}
 ],"subject":{"mediaType":"application/x.y","digest":"` + blobA + `","size":7},"annotations":{"i":"3","h":"4"},"future":[1.0]}`

const dockerList = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[` +
	`{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","size":10,"digest":"` + blobA + `",` +
	`"platform":{"architecture":"arm","os":"linux","os.version":"10","os.features":["f"],"variant":"v7","features":["sse4"]}},` +
	`{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","size":20,"digest":"` + blobB + `","platform":{"architecture":"amd64","os":"linux"}}]}`

// moves says that the images of the samples became others.
func moves() map[digest.Digest]ispec.Descriptor {
	return map[digest.Digest]ispec.Descriptor{
		blobA: {Digest: digest.Digest("sha256:" + hexOf('a')), Size: 11}, blobB: {Digest: digest.Digest("sha256:" + hexOf('b')), Size: 21},
	}
}

func hexOf(c byte) string { return strings.Repeat(string(c), 64) }

// lines is a report as text.
func lines(r convert.Report) (all []string) {
	for _, c := range r {
		all = append(all, string(c.Kind)+" "+c.Path)
	}
	return all
}

func TestParseIndex(t *testing.T) {
	v, err := convert.ParseIndex([]byte(ociIndex))
	if err != nil || v.Format != convert.OCI || v.MediaType != ispec.MediaTypeImageIndex || len(v.Manifests) != 5 || v.Subject == nil || v.Annotations["i"] != "3" {
		t.Fatalf("%v %+v", err, v)
	}
	if d := cmp.Diff(&ispec.Platform{Architecture: "arm", OS: "linux", OSVersion: "10", OSFeatures: []string{"f"}, Variant: "v7"}, v.Manifests[0].Platform); d != "" {
		t.Error(d)
	}
	v, err = convert.ParseIndex([]byte(dockerList))
	if err != nil || v.Format != convert.DockerV2S2 || v.MediaType != docker.MediaTypeManifestList || len(v.Manifests) != 2 || v.Manifests[0].Platform.Variant != "v7" {
		t.Fatalf("%v %+v", err, v)
	}
	if v, err := convert.ParseIndex([]byte(`{"schemaVersion":2,"manifests":[]}`)); err != nil || v.MediaType != ispec.MediaTypeImageIndex {
		t.Error(err)
	}
	entry := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + blobA + `","size":1}`
	full := strings.TrimSuffix(strings.Repeat(entry+",", convert.MaxIndex), ",")
	for n, ok := range map[string]bool{full: true, full + "," + entry: false} {
		_, err := convert.ParseIndex([]byte(`{"schemaVersion":2,"manifests":[` + n + `]}`))
		if (err == nil) != ok || !ok && kimg.ClassOf(err) != kimg.ErrLimit {
			t.Errorf("at the limit: %v", err)
		}
	}
}

func TestIsIndex(t *testing.T) {
	for _, c := range []struct {
		body, hint string
		want       bool
	}{
		{ociIndex, "", true}, {dockerList, docker.MediaTypeManifest, true}, {ociManifest, ispec.MediaTypeImageIndex, false}, {v1Manifest, "", false},
		{"{", ispec.MediaTypeImageIndex, true}, {"{", docker.MediaTypeManifestList, true}, {"{", "", false}, {`{"manifests":null}`, "", true},
	} {
		if got := convert.IsIndex([]byte(c.body), c.hint); got != c.want {
			t.Errorf("%.60s under %q: %v", c.body, c.hint, got)
		}
	}
}

// Everything that an index can do wrong, on the first entry and around it.
func TestBadIndex(t *testing.T) {
	for _, c := range []struct {
		old, new string
		class    kimg.Class
		word     string
	}{
		{`"schemaVersion":2`, `"schemaVersion":1`, kimg.ErrInvalid, "ambiguous"},
		{`"schemaVersion":2,`, ``, kimg.ErrInvalid, "schema-version"},
		{`"schemaVersion":2`, `"schemaVersion":"2"`, kimg.ErrInvalid, "schema-version"},
		{`"schemaVersion":2`, `"schemaVersion":2,"SchemaVersion":2`, kimg.ErrInvalid, "duplicate-key"},
		{`"schemaVersion":2`, `"schemaVersion":2,"config":{}`, kimg.ErrInvalid, "ambiguous"},
		{`"schemaVersion":2`, `"schemaVersion":2,"layers":null`, kimg.ErrInvalid, "ambiguous"},
		{`"schemaVersion":2`, `"schemaVersion":2,"LAYERS":[]`, kimg.ErrInvalid, "ambiguous"},
		{`"schemaVersion":2`, `"schemaVersion":2,"fsLayers":[]`, kimg.ErrInvalid, "ambiguous"},
		{`"schemaVersion":2`, `"schemaVersion":2,"history":[]`, kimg.ErrInvalid, "ambiguous"},
		{`image.index.v1`, `image.manifest.v1`, kimg.ErrInvalid, "media-type"},
		{`"manifests":[`, `"manifests":[null,`, kimg.ErrInvalid, "json-type"},
		{`"manifests":[`, `"manifests":null,"x":[`, kimg.ErrInvalid, "json-type"},
		{`"manifests":[`, `"manifests":{},"x":[`, kimg.ErrInvalid, "json-type"},
		{`"manifests":[`, `"x":[`, kimg.ErrUnsupported, "media-type"},
		{`"manifests":[`, `"manifests":[],"manifests":[`, kimg.ErrInvalid, "duplicate-key"},
		{`image.manifest.v1`, `image.index.v1`, kimg.ErrLimit, "manifests[0]: depth"},
		{`application/vnd.oci.image.manifest.v1+json`, docker.MediaTypeManifestList, kimg.ErrLimit, "depth"},
		{`application/vnd.oci.image.manifest.v1+json`, ``, kimg.ErrInvalid, "media-type"},
		{blobA, `sha256:` + strings.ToUpper(hexOf('a')), kimg.ErrInvalid, "digest"},
		{blobA, `md5:../..`, kimg.ErrInvalid, "digest"},
		{`,"size":10`, ``, kimg.ErrInvalid, "size: entry 0"},
		{`,"size":10`, `,"size":null`, kimg.ErrInvalid, "size: entry 0"},
		{`,"size":7}`, `}`, kimg.ErrInvalid, "size: config or subject"},
		{`"size":10`, `"size":-1`, kimg.ErrInvalid, "size"},
		{`"size":10`, `"size":4194305`, kimg.ErrLimit, "too-big"},
		{`"size":10`, `"size":1e1`, kimg.ErrInvalid, "json-type"},
		{`"size":10`, `"size":10,"data":"e30="`, kimg.ErrIntegrity, "blob-digest"},
		{`"size":7`, `"size":-7`, kimg.ErrInvalid, "subject: size"},
		{`"os":"linux"`, `"os":7`, kimg.ErrInvalid, "json-type"},
		{`"os":"linux"`, `"os":"linux","OS":"windows"`, kimg.ErrInvalid, "duplicate-key"},
		{`"annotations":{"a":"1"}`, `"annotations":{"a":1}`, kimg.ErrInvalid, "json-type"},
		{`{ "schema`, `[{ "schema`, kimg.ErrInvalid, "json"},
		{`{ "schema`, "\xef\xbb\xbf{ \"schema", kimg.ErrInvalid, "json"},
		{`"future":[1.0]`, `"future":` + strings.Repeat("[", 200) + strings.Repeat("]", 200), kimg.ErrLimit, "depth"},
		{`"future":[1.0]`, `"future":"` + strings.Repeat("x", 4<<20) + `"`, kimg.ErrLimit, "too-big"},
	} {
		bad := strings.Replace(ociIndex, c.old, c.new, 1)
		_, err := convert.ParseIndex([]byte(bad))
		if bad == ociIndex || kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%.60s: %v", c.new, err)
		}
		if out, report, err2 := convert.ConvertIndex([]byte(bad), convert.OCI, moves()); err2 == nil || err2.Error() != err.Error() || out != nil || report != nil {
			t.Errorf("%.60s: converted: %v", c.new, err2)
		}
	}
}

func TestConvertIndexToDocker(t *testing.T) {
	out, report, err := convert.ConvertIndex([]byte(ociIndex), convert.DockerV2S2, moves())
	want := strings.NewReplacer(`"size":10`, `"size":11`, `"size":20`, `"size":21`, blobA, "sha256:"+hexOf('a'), blobB, "sha256:"+hexOf('b')).Replace(dockerList)
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\n%s", err, out, want)
	}
	if d := cmp.Diff([]string{
		"lost manifests[0].urls", "lost manifests[0].annotations.a", "lost manifests[0].platform.new", "lost manifests[0].later", "lost manifests[1].artifactType",
		"lost manifests[2]", "lost manifests[3]", "lost manifests[4]", "lost subject", "lost annotations.i", "lost annotations.h", "lost future",
	}, lines(report)); d != "" {
		t.Error(d)
	}
}

func TestConvertIndexToOCI(t *testing.T) {
	out, report, err := convert.ConvertIndex([]byte(strings.Replace(dockerList, `{"schema`, `{"annotations":{"k":"v"},"schema`, 1)), convert.OCI, moves())
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + hexOf('a') + `","size":11,` +
		`"platform":{"architecture":"arm","os":"linux","os.version":"10","os.features":["f"],"variant":"v7","features":["sse4"]}},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + hexOf('b') + `","size":21,"platform":{"architecture":"amd64","os":"linux"}}]}`
	if d := cmp.Diff([]string{"lost annotations.k"}, lines(report)); err != nil || string(out) != want || d != "" {
		t.Errorf("%v %s\n%s\n%s", err, d, out, want)
	}
	// And back: the list as it was.
	back := map[digest.Digest]ispec.Descriptor{}
	for old, d := range moves() {
		back[d.Digest] = ispec.Descriptor{Digest: old, Size: d.Size - 1}
	}
	if out, report, err = convert.ConvertIndex(out, convert.DockerV2S2, back); err != nil || report != nil || string(out) != dockerList {
		t.Errorf("%v %v\n%s", err, report, out)
	}
}

// Within a format only what must change does; what nobody knows stays.
func TestConvertIndexSameFormat(t *testing.T) {
	m := moves()
	m[blobA] = ispec.Descriptor{Digest: m[blobA].Digest, Size: 11, MediaType: docker.MediaTypeManifest}
	out, report, err := convert.ConvertIndex([]byte(ociIndex), convert.OCI, m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{
		"lost manifests[0].urls", "changed manifests[2].annotations.vnd.docker.reference.digest", "lost manifests[4]", "changed subject",
	}, lines(report)); d != "" {
		t.Error(d)
	}
	for _, want := range []string{
		`"new":1`, `"later":2`, `"features":["sse4"]`, `"future":[1.0]`, `"x":"y"`, `"digest":"` + diffB + `","size":40`, `"annotations":{"i":"3","h":"4"}`,
		`"digest":"` + diffA + `","size":30`, `"vnd.docker.reference.digest":"sha256:` + hexOf('a') + `"`, `"artifactType":"application/vnd.oci.image.config.v1+json"`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is gone: %s", want, out)
		}
	}
	if strings.Contains(string(out), blobA) || strings.Contains(string(out), diffC) || strings.Contains(string(out), "urls") {
		t.Errorf("still there: %s", out)
	}
	v, err := convert.ParseIndex(out)
	if err != nil || len(v.Manifests) != 4 || v.Manifests[0].MediaType != docker.MediaTypeManifest || v.Manifests[0].Size != 11 || v.Subject.Size != 11 {
		t.Errorf("%v %+v", err, v)
	}
	// Nothing moved: not a byte changes, not even of an index without a media type.
	stay := map[digest.Digest]ispec.Descriptor{blobA: {Digest: blobA, Size: 10}, blobB: {Digest: blobB, Size: 20}, diffC: {Digest: diffC, Size: 50}}
	for _, same := range []string{ociIndex, dockerList, strings.Replace(ociIndex, `"mediaType":"application/vnd.oci.image.index.v1+json",`, ``, 1)} {
		f := convert.OCI
		if same == dockerList {
			f = convert.DockerV2S2
		}
		if out, report, err := convert.ConvertIndex([]byte(same), f, stay); err != nil || report != nil || string(out) != same {
			t.Errorf("%v %v\n%s\n%s", err, report, same, out)
		}
	}
}

func TestConvertIndexRefuses(t *testing.T) {
	plain := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + blobA + `","size":10}]}`
	with := func(d ispec.Descriptor) map[digest.Digest]ispec.Descriptor {
		return map[digest.Digest]ispec.Descriptor{blobA: d}
	}
	for _, c := range []struct {
		name  string
		to    convert.Format
		moved map[digest.Digest]ispec.Descriptor
		class kimg.Class
		word  string
	}{
		{"schema 1", convert.DockerV2S1, with(ispec.Descriptor{Digest: blobB}), kimg.ErrUnsupported, "media-type"},
		{"no format", "", with(ispec.Descriptor{Digest: blobB}), kimg.ErrUnsupported, "media-type"},
		{"no image", convert.OCI, nil, kimg.ErrNotFound, "blob-missing"},
		{"bad digest", convert.OCI, with(ispec.Descriptor{Digest: "x"}), kimg.ErrInvalid, "digest"},
		{"bad size", convert.OCI, with(ispec.Descriptor{Digest: blobB, Size: -1}), kimg.ErrInvalid, "size"},
		{"other size", convert.OCI, with(ispec.Descriptor{Digest: blobA, Size: 11}), kimg.ErrIntegrity, "size"},
		{"other kind", convert.OCI, with(ispec.Descriptor{Digest: blobB, MediaType: ispec.MediaTypeImageIndex}), kimg.ErrInvalid, "media-type"},
		{"OCI in a list", convert.DockerV2S2, with(ispec.Descriptor{Digest: blobB, MediaType: ispec.MediaTypeImageManifest}), kimg.ErrInvalid, "media-type"},
		{"no platform", convert.DockerV2S2, with(ispec.Descriptor{Digest: blobB}), kimg.ErrUnsupported, "platform"},
	} {
		if out, report, err := convert.ConvertIndex([]byte(plain), c.to, c.moved); kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) || out != nil || report != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	out, report, err := convert.ConvertIndex([]byte(plain), convert.DockerV2S2, with(ispec.Descriptor{
		Digest: blobB, Platform: &ispec.Platform{Architecture: "arm64", OS: "linux"},
	}))
	if d := cmp.Diff([]string{"added manifests[0].platform"}, lines(report)); err != nil || d != "" || !strings.Contains(string(out), `"platform":{"architecture":"arm64","os":"linux"}`) {
		t.Errorf("%v %s\n%s", err, d, out)
	}
}

// What is no image need not be known, whatever shows that it is none; and the caller's values stay the caller's.
func TestConvertIndexOthers(t *testing.T) {
	for _, other := range []string{
		`"mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"architecture":"unknown","os":"unknown"}`,
		`"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example"`,
		`"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"vnd.docker.reference.type":"x"}`,
		`"mediaType":"application/vnd.example"`,
	} {
		data := []byte(`{"schemaVersion":2,"manifests":[{` + other + `,"digest":"` + blobA + `","size":10}]}`)
		if out, report, err := convert.ConvertIndex(data, convert.OCI, nil); err != nil || report != nil || string(out) != string(data) {
			t.Errorf("%s: %v %v %s", other, err, report, out)
		}
		out, report, err := convert.ConvertIndex(data, convert.DockerV2S2, moves())
		if d := cmp.Diff([]string{"lost manifests[0]"}, lines(report)); err != nil || d != "" || !strings.HasSuffix(string(out), `"manifests":[]}`) {
			t.Errorf("%s: %v %s %s", other, err, d, out)
		}
	}
	// An entry that no image is converted to keeps what it is; one that is known moves.
	out, _, err := convert.ConvertIndex([]byte(ociIndex), convert.OCI, map[digest.Digest]ispec.Descriptor{
		blobA: moves()[blobA], blobB: moves()[blobB], diffB: {Digest: diffC, Size: 41, MediaType: "application/vnd.example"},
	})
	if err != nil || !strings.Contains(string(out), `"mediaType":"application/vnd.example","digest":"`+diffC+`","size":41`) {
		t.Errorf("%v %s", err, out)
	}
}
