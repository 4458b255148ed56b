package faults

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/image"
)

// artifacts are manifests of what is no image: %[1]s and %[2]s are the descriptors of two blobs, without braces and types.
var artifacts = map[string]string{
	"chart":        `{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json",%[1]s},"layers":[{"mediaType":"application/vnd.cncf.helm.chart.content.v1.tar+gzip",%[2]s}]}`,
	"artifactType": `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x","config":{"mediaType":"application/vnd.oci.empty.v1+json",%[1]s},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json",%[1]s}], "x":1}`,
	"no layers":    `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x","config":{"mediaType":"application/vnd.oci.empty.v1+json",%[1]s},"layers":[]}`,
	"signature":    `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%[1]s},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",%[2]s},{"mediaType":"text/plain",%[2]s,"annotations":{"a":"b"}}]}`,
	"plugin":       `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.plugin.v1+json",%[1]s},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip",%[2]s}]}`,
}

var artifactBlobs = [2][]byte{[]byte("{}"), bytes.Repeat([]byte("no layer\n"), 100_000)}

// artifact puts an artifact into a registry.
func artifact(s *Registry, kind string) []byte {
	var said [2]any
	for i, b := range artifactBlobs {
		s.PutBlob("app", b)
		said[i] = fmt.Sprintf(`"digest":%q,"size":%d`, Digest(b), len(b))
	}
	manifest := []byte(fmt.Sprintf(artifacts[kind]+"%[3]s", said[0], said[1], ""))
	mediaType := "application/vnd.oci.image.manifest.v1+json"
	if kind == "plugin" {
		mediaType = "application/vnd.docker.distribution.manifest.v2+json"
	}
	s.PutManifest("app", "1", manifest, mediaType)
	return manifest
}

// What is no image is copied byte for byte, alone or in an index, and becomes nothing else.
func TestArtifacts(t *testing.T) {
	for kind := range artifacts {
		t.Run(kind, func(t *testing.T) {
			s, to, dir := &Registry{}, &Registry{}, t.TempDir()
			manifest := artifact(s, kind)
			places := []string{"docker://" + serve(t, s) + "/app:1", "dir:" + dir + "/dir", "oci:" + dir + "/oci:1", "oci-archive:" + dir + "/a.tar:1", "docker://" + serve(t, to) + "/app:1"}
			if kind == "plugin" { // oci: holds no Docker manifests
				_, err := copyImage(t, image.Options{}, places[0], places[2])
				ends(t, err, kimg.ErrUnsupported)
				places = []string{places[0], places[1], places[4]}
			}
			for i, place := range places[1:] {
				r, err := copyImage(t, image.Options{PreserveDigests: i%2 == 0, Single: true, AdditionalTags: []string{"2"}}, places[i], place)
				ends(t, err, "")
				if r.NewDigest.String() != Digest(manifest) || r.OldDigest != r.NewDigest || r.ConfigDigest.String() != Digest(artifactBlobs[0]) {
					t.Errorf("%s: %+v", place, r)
				}
			}
			for _, place := range places {
				if v := validated(t, place); !v.Valid() || v.NoImage == nil || v.ConfigDigest.String() != Digest(artifactBlobs[0]) || v.Digest.String() != Digest(manifest) {
					t.Errorf("%s: %+v", place, v)
				}
			}
			for _, tag := range []string{"1", "2"} {
				if !bytes.Equal(to.Manifest("app", tag), manifest) {
					t.Errorf("%s: not the same", tag)
				}
			}
			for i, b := range artifactBlobs {
				if strings.Contains(string(manifest), Digest(b)) && !bytes.Equal(to.blobs["app@"+Digest(b)], b) {
					t.Errorf("blob %d is not the same", i)
				}
			}
			for name, o := range map[string]image.Options{"docker-archive:" + dir + "/d.tar": {}, "dir:" + dir + "/packed": {Compression: "gzip"}, "dir:" + dir + "/schema1": {Format: convert.DockerV2S1}} {
				_, err := copyImage(t, o, places[0], name)
				ends(t, err, kimg.ErrUnsupported)
				if !strings.Contains(err.Error(), "not-an-image") && !strings.Contains(err.Error(), "media-type") {
					t.Error(err)
				}
			}
		})
	}
}

// The blobs of an artifact are checked.
func TestArtifactDamage(t *testing.T) {
	for _, what := range []int{0, 1} {
		s := &Registry{}
		artifact(s, "signature")
		s.putBlob("app", Digest(artifactBlobs[what]), flip(artifactBlobs[what]))
		src := "docker://" + serve(t, s) + "/app:1"
		_, err := copyImage(t, image.Options{}, src, "oci:"+t.TempDir()+"/x:1")
		ends(t, err, kimg.ErrIntegrity)
		if v := validated(t, src); len(v.Problems) != 1+what || kimg.ClassOf(v.Problems[0]) != kimg.ErrIntegrity { // two layers are one blob
			t.Errorf("%+v", v)
		}
	}
}

// validated checks an image anywhere.
func validated(t *testing.T, text string) image.Validation {
	t.Helper()
	ref, err := image.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	c := image.New(image.Options{Sys: system(t)})
	defer c.Close()
	v, err := c.Validate(t.Context(), ref, false)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// An index may have images that turn out to be none, and come as a whole.
func TestArtifactsInIndex(t *testing.T) {
	s, to := &Registry{}, &Registry{}
	manifest := artifact(s, "chart")
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`, Digest(manifest), len(manifest))
	s.PutManifest("app", "2", index, "application/vnd.oci.image.index.v1+json")
	_, err := copyImage(t, image.Options{Referrers: true}, "docker://"+serve(t, s)+"/app:2", "docker://"+serve(t, to)+"/app:2")
	ends(t, err, "")
	if !bytes.Equal(to.Manifest("app", "2"), index) || to.blobs["app@"+Digest(artifactBlobs[1])] == nil {
		t.Error("not the same")
	}
}

// What is about an artifact comes along, and the policy is asked about it, as about an image.
func TestArtifactIsGated(t *testing.T) {
	s, to := &Registry{Referrers: true}, &Registry{Referrers: true}
	manifest := artifact(s, "chart")
	about := s.artifact(manifest, "", "one")
	src, dst := "docker://"+serve(t, s)+"/app:1", "docker://"+serve(t, to)+"/app:1"
	sys := system(t)
	if err := os.WriteFile(sys.SignaturePolicyPath, []byte(`{"default":[{"type":"reject"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := copyImage(t, image.Options{Referrers: true, Sys: sys}, src, dst)
	ends(t, err, kimg.ErrDenied)
	if names := to.Names(); len(names) > 0 || len(to.blobs) > 0 {
		t.Errorf("%v is there", names)
	}
	_, err = copyImage(t, image.Options{Referrers: true}, src, dst)
	ends(t, err, "")
	if !bytes.Equal(to.Manifest("app", Digest(about)), about) || !bytes.Equal(to.Manifest("app", "1"), manifest) {
		t.Error("not the same")
	}
}
