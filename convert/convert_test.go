package convert_test

import (
	"testing"

	"github.com/kimg/kimg/convert"
)

// Between schema 2 and OCI the configuration keeps its bytes, and so the image its ID.
func TestConvertKeepsTheConfig(t *testing.T) {
	for _, from := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			doc := document(t, from, ociConfig, 1)
			out, report, err := convert.Convert(doc, to, nil, convert.Options{})
			if err != nil || report != nil || string(out.Config) != ociConfig || out.Format != to {
				t.Fatalf("%s to %s: %v %v\n%s", from, to, err, report, out.Config)
			}
			if same := string(out.Manifest) == string(doc.Manifest); same != (from == to) {
				t.Errorf("%s to %s: %s", from, to, out.Manifest)
			}
			if _, err := convert.Parse(out, nil); err != nil {
				t.Error(err)
			}
		}
	}
}
