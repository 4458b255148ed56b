package convert_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
)

// FuzzIndex: no panic; an index that is accepted reads as the same when it is written in the same format, and loses
// nothing without a report on the way to the other and back.
func FuzzIndex(f *testing.F) {
	for _, seed := range []string{ociIndex, dockerList, `{"schemaVersion":2,"manifests":[]}`, ociManifest, v1Manifest, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := convert.ParseIndex(data)
		if err != nil {
			oneLine(t, err)
			return
		}
		if !convert.IsIndex(data, "") {
			t.Fatal("an index, but none")
		}
		stay, moved := map[digest.Digest]ispec.Descriptor{}, map[digest.Digest]ispec.Descriptor{}
		for _, d := range v.Manifests {
			stay[d.Digest] = ispec.Descriptor{Digest: d.Digest, Size: d.Size}
			moved[d.Digest] = ispec.Descriptor{Digest: digest.FromString(string(d.Digest)), Size: d.Size}
		}
		if out, _, err := convert.ConvertIndex(data, v.Format, stay); err == nil {
			again, err := convert.ParseIndex(out)
			if d := cmp.Diff(v, again, same); err != nil || len(again.Manifests) == len(v.Manifests) && d != "" {
				t.Fatal(err, d)
			}
		} else {
			oneLine(t, err)
		}
		if reduced, err := convert.ReduceIndex(data, func(d ispec.Descriptor) bool { return d.Platform != nil }); err != nil {
			t.Fatal(err)
		} else if w, err := convert.ParseIndex(reduced); err != nil || w.MediaType != v.MediaType || cmp.Diff(w.Annotations, v.Annotations, same) != "" {
			t.Fatalf("%v in %s", err, reduced)
		}
		for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			out, report, err := convert.ConvertIndex(data, to, moved)
			if err != nil {
				oneLine(t, err)
				continue
			}
			again, err := convert.ParseIndex(out)
			if err != nil || again.Format != to {
				t.Fatalf("%v in %s", err, out)
			}
			gone := 0
			for _, c := range report {
				if strings.Count(c.Path, ".") == 0 && strings.HasPrefix(c.Path, "manifests[") && c.Kind == convert.Lost {
					gone++
				}
			}
			if len(again.Manifests)+gone != len(v.Manifests) {
				t.Fatalf("%d entries became %d, %d reported", len(v.Manifests), len(again.Manifests), gone)
			}
			if twice, _, _ := convert.ConvertIndex(data, to, moved); string(twice) != string(out) {
				t.Fatal("not the same twice")
			}
		}
	})
}
