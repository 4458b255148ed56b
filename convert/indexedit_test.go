package convert_test

import (
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSetInIndex is B31 for indexes: a descriptor with type, size and platform is appended, or takes the place of the one with its digest.
func TestSetInIndex(t *testing.T) {
	amd64 := &ispec.Platform{OS: "linux", Architecture: "amd64"}
	entry := func(mediaType, of string, p *ispec.Platform) ispec.Descriptor {
		return ispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(of), Size: 7, Platform: p}
	}
	set := func(index []byte, d ispec.Descriptor, features ...string) ([]byte, convert.IndexView) {
		t.Helper()
		out, err := convert.SetInIndex(index, d, features)
		if err != nil {
			t.Fatal(err)
		}
		v, err := convert.ParseIndex(out)
		if err != nil {
			t.Fatal(err)
		}
		return out, v
	}
	empty, err := convert.NewIndex()
	if err != nil {
		t.Fatal(err)
	}
	_, v := set(empty, entry(ispec.MediaTypeImageManifest, "a", amd64))
	if v.Format != convert.OCI || len(v.Manifests) != 1 {
		t.Errorf("%+v", v)
	}
	list, v := set(empty, entry(docker.MediaTypeManifest, "a", amd64), "sse4")
	if v.Format != convert.DockerV2S2 || v.MediaType != docker.MediaTypeManifestList || !strings.Contains(string(list), `"features":["sse4"]`) {
		t.Errorf("%s", list)
	}
	list, v = set(list, entry(docker.MediaTypeManifest, "b", amd64))
	if v.Format != convert.DockerV2S2 || len(v.Manifests) != 2 {
		t.Errorf("%s", list)
	}
	// A list becomes an index with what it cannot hold; what it had stays, features included.
	for name, d := range map[string]ispec.Descriptor{
		"format": entry(ispec.MediaTypeImageManifest, "c", amd64), "platform": entry(docker.MediaTypeManifest, "c", nil),
		"annotations": {MediaType: docker.MediaTypeManifest, Digest: digest.FromString("a"), Size: 7, Platform: amd64, Annotations: map[string]string{"x": "y"}},
	} {
		out, v := set(list, d)
		if v.Format != convert.OCI || v.Manifests[0].MediaType != docker.MediaTypeManifest || !strings.Contains(string(out), `"features":["sse4"]`) {
			t.Errorf("%s: %s", name, out)
		}
	}
	// Members nobody knows and their spelling stay, also in the entry that changes.
	odd := []byte(`{ "schemaVersion": 2, "x": 1.0, "mediaType": "` + ispec.MediaTypeImageIndex + `", "manifests": [
	{"mediaType":"` + ispec.MediaTypeImageManifest + `","digest":"` + digest.FromString("a").String() + `","size":7,"odd":[1, 2],"platform":{"os":"linux","architecture":"arm"}}]}`)
	d := entry(ispec.MediaTypeImageManifest, "a", amd64)
	d.Annotations = map[string]string{"n": "v"}
	out, v := set(odd, d)
	if len(v.Manifests) != 1 || v.Manifests[0].Platform.Architecture != "amd64" || v.Manifests[0].Annotations["n"] != "v" ||
		!strings.Contains(string(out), `"odd":[1, 2]`) || !strings.Contains(string(out), `1.0`) {
		t.Errorf("%s", out)
	}
	if again, _ := set(out, v.Manifests[0]); string(again) != string(out) {
		t.Errorf("%s\n%s", again, out)
	}
	for name, d := range map[string]ispec.Descriptor{
		"no type": entry("", "x", amd64), "no digest": {MediaType: ispec.MediaTypeImageManifest, Size: 1, Platform: amd64},
		"index": entry(ispec.MediaTypeImageIndex, "x", amd64),
	} {
		if out, err := convert.SetInIndex(odd, d, nil); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
	if _, err := convert.SetInIndex(empty, entry(ispec.MediaTypeImageManifest, "x", nil), []string{"f"}); kimg.ClassOf(err) != kimg.ErrInvalid {
		t.Error(err)
	}
	if _, err := convert.SetInIndex([]byte(`{"schemaVersion":2}`), d, nil); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
}
