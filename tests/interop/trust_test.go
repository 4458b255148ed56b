//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/faults"
	"github.com/kimg/kimg/tests/lab"
)

// B5, B7: an index of a registry with all its images, attestations, signatures and other referrers goes through a store to a registry
// without the API for them, and nothing is missing there: skopeo and podman take it from there.
func TestAboutThroughStore(t *testing.T) {
	testenv.Need(t, "pigz", "zstd", "podman", "skopeo")
	dir := lab.TempDir(t)
	index, _ := foreignIndex(t, dir+"/in")
	from := &faults.Registry{Referrers: true}
	server := httptest.NewServer(from)
	defer server.Close()
	src, dst := strings.TrimPrefix(server.URL, "http://")+"/app:1", lab.Registry(t)+"/mirror/app:1"
	a, b := lab.NewStore(t, ""), lab.NewStore(t, "")
	a.Kimg("copy", "--all", "--preserve-digests", "--tls-verify=false", "oci:"+dir+"/in:localhost/app:1", "docker://"+src)
	var entries struct{ Manifests []struct{ Digest string } }
	readJSON(t, dir+"/in/blobs/sha256/"+index[7:], &entries)
	want := map[string][]byte{} // what leads to it at the end
	about := func(tag, subject, text string) string {
		from.PutBlob("app", []byte(text))
		from.PutBlob("app", []byte("{}"))
		var of any
		if subject != "" {
			of = map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": len(from.Manifest("app", subject))}
		}
		data, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/x.about",
			"config":  map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": testimage.Digest([]byte("{}")), "size": 2},
			"layers":  []any{map[string]any{"mediaType": "text/plain", "digest": testimage.Digest([]byte(text)), "size": len(text)}},
			"subject": of,
		})
		if err != nil {
			t.Fatal(err)
		}
		from.PutManifest("app", tag, data, "application/vnd.oci.image.manifest.v1+json")
		if tag == "" {
			tag = "@" + testimage.Digest(data)
		} else {
			tag = ":" + tag
		}
		want[tag] = data
		return testimage.Digest(data)
	}
	image := entries.Manifests[0].Digest
	about(strings.Replace(index, ":", "-", 1)+".sig", "", "signature of the index")
	about(strings.Replace(image, ":", "-", 1)+".att", "", "attestation of an image")
	sbom := about("", image, "contents of an image")
	signature := about("", sbom, "signature of the contents")
	whole := about("", index, "about the index")

	a.Kimg("pull", "--all", "--keep-blobs", "--tls-verify=false", src)
	a.Kimg("check")
	a.Kimg("push", "--all", "--preserve-digests", "--tls-verify=false", src, "docker://"+dst)
	repo := strings.TrimSuffix(dst, ":1")
	raw := func(name string) string {
		return lab.Skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+repo+name)
	}
	if got := raw(":1"); testimage.Digest([]byte(got)) != index {
		t.Errorf("another index: %s", got)
	}
	for name, data := range want {
		if got := raw(name); got != string(data) {
			t.Errorf("%s: %s", name, got)
		}
	}
	for subject, digest := range map[string]string{image: sbom, sbom: signature, index: whole} {
		if got := raw(":" + strings.Replace(subject, ":", "-", 1)); !strings.Contains(got, digest) {
			t.Errorf("referrers of %s: %s", subject, got)
		}
	}
	lab.Skopeo(t, "copy", "-q", "--all", "--src-tls-verify=false", "docker://"+dst, "dir:"+dir+"/out")
	b.Peer("podman", "pull", "-q", "--tls-verify=false", dst)
	c := lab.NewStore(t, "")
	c.Kimg("pull", "--all", "--keep-blobs", "--tls-verify=false", dst) // and by kimg, from the tags
	c.Kimg("push", "--all", "--tls-verify=false", dst, "docker://"+strings.Replace(repo, "mirror", "again", 1)+":1")
	if got := lab.Skopeo(t, "list-tags", "--tls-verify=false", "docker://"+strings.Replace(repo, "mirror", "again", 1)); strings.Count(got, "sha256-") != 5 {
		t.Errorf("tags of the third registry: %s", got)
	}
}

// below lists a directory with all that is in it, but for what a lock leaves.
func below(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !strings.HasSuffix(path, ".lock") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A policy that rejects everything keeps every image out, whatever command wants it, in one line, and nothing is written or left; what
// leaves the store is the user's own.
func TestRejectedEverywhere(t *testing.T) {
	dir := lab.TempDir(t)
	remote := lab.Registry(t) + "/app:1"
	s := lab.NewStore(t, "")
	if err := testimage.NewImage(71, testimage.ImageOptions{Gzip: true}).WriteDir(dir + "/image"); err != nil {
		t.Fatal(err)
	}
	policy := dir + "/policy.json"
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	image := "dir:" + dir + "/image"
	s.Kimg("copy", "--dest-tls-verify=false", image, "docker://"+remote)
	s.Kimg("copy", image, "oci-archive:"+dir+"/image.tar:app")
	s.Kimg("copy", image, "docker-archive:"+dir+"/docker.tar:app:1")
	s.Kimg("copy", image, "localhost/own:1")
	s.Kimg("manifest", "create", "localhost/list:1")
	conf := dir + "/registries.conf"
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", strings.TrimSuffix(remote, "/app:1")), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Env = append(s.Env, "CONTAINERS_REGISTRIES_CONF="+conf, "TMPDIR="+lab.TempDir(t))
	before := append(below(t, s.Root), below(t, dir)...)
	for _, args := range [][]string{
		{"pull", remote}, {"pull", "--all", remote}, {"pull", "oci-archive:" + dir + "/image.tar"}, {"from", "--pull", "always", remote},
		{"load", "-i", dir + "/image.tar"}, {"load", "-i", dir + "/docker.tar"}, {"load", "-i", dir + "/image"},
		{"copy", "docker://" + remote, "dir:" + dir + "/x"}, {"copy", "--all", image, "oci:" + dir + "/x"}, {"copy", image, "localhost/x:1"},
		{"copy", "docker-archive:" + dir + "/docker.tar", "docker://" + remote}, {"convert", image, "oci:" + dir + "/x"}, {"convert", image, "localhost/x:1"},
		{"manifest", "add", "localhost/list:1", "docker://" + remote}, {"export", "-o", dir + "/x.tar", image},
		{"inspect", "docker://" + remote}, {"validate", image},
	} {
		r := s.Try(append([]string{"--signature-policy", policy}, args...)...)
		if r.Code != 1 || !strings.HasPrefix(r.Stderr, "kimg: denied: ") || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "policy") {
			t.Errorf("%v: %+v", args, r)
		}
		if after := append(below(t, s.Root), below(t, dir)...); !slices.Equal(before, after) {
			t.Fatalf("%v left something: %v and not %v", args, after, before)
		}
	}
	s.Kimg("--signature-policy", policy, "push", "--tls-verify=false", "localhost/own:1", "docker://"+remote)
	s.Kimg("--signature-policy", policy, "copy", "localhost/own:1", "dir:"+dir+"/own")
	s.Kimg("--signature-policy", policy, "from", "localhost/own:1")
}

// Signatures are where other tools have them: what kimg or skopeo brought into a store with signatures leaves it with them by the other.
func TestSignaturesInStore(t *testing.T) {
	testenv.Need(t, "skopeo")
	dir := lab.TempDir(t)
	s := lab.NewStore(t, "")
	if err := testimage.NewImage(72, testimage.ImageOptions{}).WriteDir(dir + "/src"); err != nil {
		t.Fatal(err)
	}
	for n, text := range []string{"\x90 one", "\x90 number two"} {
		if err := os.WriteFile(fmt.Sprintf("%s/src/signature-%d", dir, n+1), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	signed := func(at, who string) {
		t.Helper()
		if data, err := os.ReadFile(dir + "/" + at + "/signature-2"); err != nil || string(data) != "\x90 number two" {
			t.Errorf("%s: %q, %v", who, data, err)
		}
	}
	s.Kimg("copy", "dir:"+dir+"/src", "localhost/ours:1")
	s.Sound("after signatures")
	lab.Skopeo(t, "copy", "-q", s.Reference("localhost/ours:1"), "dir:"+dir+"/a")
	signed("a", "skopeo, of kimg's")
	s.Kimg("push", "localhost/ours:1", "dir:"+dir+"/b")
	signed("b", "kimg, of its own")
	s.Kimg("rmi", "localhost/ours:1")
	lab.Skopeo(t, "copy", "-q", "dir:"+dir+"/src", s.Reference("localhost/theirs:1"))
	s.Kimg("push", "localhost/theirs:1", "dir:"+dir+"/c")
	signed("c", "kimg, of skopeo's")
	if r := s.Try("push", "localhost/theirs:1", "oci:"+dir+"/d"); r.Code != 1 || !strings.Contains(r.Stderr, "unsupported") || !strings.Contains(r.Stderr, "--remove-signatures") {
		t.Errorf("%+v", r)
	}
	s.Kimg("push", "--remove-signatures", "localhost/theirs:1", "oci:"+dir+"/d")
	if _, err := os.Stat(dir + "/d/oci-layout"); err != nil {
		t.Error(err)
	}
	s.Kimg("load", "-i", dir+"/src") // they are added to a record that has some
	s.Kimg("push", "localhost/theirs:1", "dir:"+dir+"/e")
	signed("e", "kimg, after load")
}
