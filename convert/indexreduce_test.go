package convert_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
)

// TestReduceIndex is row X11: what stays is what was there, also members nobody knows.
func TestReduceIndex(t *testing.T) {
	for _, data := range []string{ociIndex, dockerList} {
		before, err := convert.ParseIndex([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		all, err := convert.ReduceIndex([]byte(data), func(ispec.Descriptor) bool { return true })
		if err != nil || string(all) != data {
			t.Errorf("%v\n%s", err, all)
		}
		for _, kept := range []string{blobB, ""} {
			out, err := convert.ReduceIndex([]byte(data), func(d ispec.Descriptor) bool { return string(d.Digest) == kept })
			if err != nil {
				t.Fatal(err)
			}
			after, err := convert.ParseIndex(out)
			want := before
			want.Manifests = nil
			if kept != "" {
				want.Manifests = before.Manifests[1:2]
			}
			if d := cmp.Diff(want, after); err != nil || d != "" || strings.Contains(data, `"future":[1.0]`) != strings.Contains(string(out), `"future":[1.0]`) {
				t.Errorf("%v\n%s\n%s", err, d, out)
			}
		}
	}
	if _, err := convert.ReduceIndex([]byte(`{"schemaVersion":2,"config":{}}`), nil); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
}
