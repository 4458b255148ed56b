package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

func ref(t *testing.T, text string) types.ImageReference {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// anyPolicy accepts everything, whatever the machine's policy is.
func anyPolicy(t *testing.T) *types.SystemContext {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return &types.SystemContext{SignaturePolicyPath: file}
}

func convertImage(t *testing.T, o Options, src, dst string) (Result, error) {
	t.Helper()
	o.Sys, o.NoSync = anyPolicy(t), true
	c := New(o)
	defer c.Close()
	return c.Convert(context.Background(), ref(t, src), ref(t, dst))
}

func must(t *testing.T, o Options, src, dst string) Result {
	t.Helper()
	r, err := convertImage(t, o, src, dst)
	if err != nil {
		t.Fatalf("%s -> %s: %v", src, dst, err)
	}
	return r
}

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	v1 := testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 3, Empty: 2, Signed: true, Compression: []string{"gzip", "plain", "xz", "bzip2"}})
	if err := v1.WriteDir(dir + "/v1"); err != nil {
		t.Fatal(err)
	}
	r := must(t, Options{Proof: false}, "dir:"+dir+"/v1", "oci:"+dir+"/oci:a")
	t.Logf("%+v", r)
	r = must(t, Options{}, "oci:"+dir+"/oci:a", "dir:"+dir+"/v2")
	t.Logf("%+v", r)
	r = must(t, Options{Format: convert.DockerV2S2}, "oci:"+dir+"/oci:a", "dir:"+dir+"/v3")
	t.Logf("%+v", r)
	r = must(t, Options{Format: convert.DockerV2S1}, "oci:"+dir+"/oci:a", "dir:"+dir+"/v4")
	t.Logf("%+v", r)
}
