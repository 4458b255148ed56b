package layout

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
)

// FuzzIndex puts an image into any index.json: what was accepted names the image afterwards, and every other entry is
// still there, byte for byte.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:aa","annotations":{"org.opencontainers.image.ref.name":"x"}},{}]}`), "x")
	f.Add([]byte(`{"manifests":null,"schemaVersion":2}`), "")
	f.Add([]byte(`{"schemaVersion":2,"a":{"b":1e400}}`), "name:tag")
	desc := ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if _, err := Select(data, name); err != nil && kimg.ClassOf(err) == kimg.ErrInternal {
			t.Errorf("%v", err)
		}
		if CheckName(name) != nil {
			return
		}
		out, err := Replace(data, name, desc)
		if err != nil {
			if kimg.ClassOf(err) == kimg.ErrInternal {
				t.Errorf("%v", err)
			}
			return
		}
		if name != "" {
			if got, err := Select(out, name); err != nil || got.Digest != desc.Digest {
				t.Errorf("%v\n%s", err, out)
			}
		}
		before, after := manifests(t, data), manifests(t, out)
		lost := 0
		for _, e := range before {
			if !slices.Contains(after, e) {
				lost++
			}
		}
		parsed, _ := parseIndex(data)
		mine := 0
		for _, d := range parsed.Manifests {
			if d.Annotations[ispec.AnnotationRefName] == name {
				mine++
			}
		}
		if lost > mine {
			t.Errorf("lost %d entries, %d were to go\n%s\n%s", lost, mine, data, out)
		}
	})
}

func manifests(t *testing.T, index []byte) (all []string) {
	if len(index) == 0 {
		return nil
	}
	members, err := strict.Object(index)
	must(t, err)
	for _, m := range members {
		if m.Name == "manifests" && string(m.Value) != "null" {
			list, err := strict.List(m.Value)
			must(t, err)
			for _, e := range list {
				all = append(all, string(e))
			}
		}
	}
	return all
}
