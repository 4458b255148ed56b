//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

// trusting runs a registry that podman, buildah, skopeo and kimg speak HTTP to.
func trusting(t *testing.T) string {
	addr, dir := lab.Registry(t), lab.TempDir(t)
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
	return addr
}

// seen is the index that a tool prints.
func seen(t *testing.T, text string) (x ispec.Index) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return x
}

// TestManifestInTurn: kimg, podman and buildah change one list in turn, and each inspects and pushes what the others made.
func TestManifestInTurn(t *testing.T) {
	testenv.Need(t, "podman", "buildah", "skopeo")
	addr := trusting(t)
	s := lab.NewStore(t, "")
	ids := images(t, s, "linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le")
	id := s.Kimg("manifest", "create", "localhost/l:1", ids[0])
	if raw := s.Peer("podman", "manifest", "inspect", "localhost/l:1"); len(seen(t, raw).Manifests) != 1 {
		t.Errorf("podman: %s", raw)
	}
	s.Peer("podman", "manifest", "add", "localhost/l:1", "containers-storage:"+ids[1])
	s.Kimg("manifest", "add", "--annotation", "a=b", "localhost/l:1", ids[2])
	s.Peer("buildah", "manifest", "add", "localhost/l:1", "containers-storage:"+ids[3])
	x := seen(t, s.Kimg("manifest", "inspect", "localhost/l:1"))
	if len(x.Manifests) != 4 || x.Manifests[2].Annotations["a"] != "b" || x.Manifests[3].Platform.Architecture != "ppc64le" {
		t.Errorf("%+v", x)
	}
	if out := s.Kimg("manifest", "inspect", "--json", "localhost/l:1"); strings.Count(out, `"imageID"`) != 4 || !strings.Contains(out, id) {
		t.Errorf("%s", out)
	}
	s.Peer("podman", "manifest", "remove", "localhost/l:1", x.Manifests[0].Digest.String())
	s.Kimg("manifest", "remove", "localhost/l:1", x.Manifests[3].Digest.String())
	if x = seen(t, s.Peer("buildah", "manifest", "inspect", "localhost/l:1")); len(x.Manifests) != 2 {
		t.Errorf("%+v", x)
	}
	// Layers of the store are not compressed: with --preserve-digests they stay so, and the index is the same there.
	list := s.Kimg("manifest", "inspect", "--raw", "localhost/l:1")
	remote := "docker://" + addr + "/team/l:1"
	d := s.Kimg("manifest", "push", "--preserve-digests", "localhost/l:1", remote)
	if raw := lab.Skopeo(t, "inspect", "--raw", "--tls-verify=false", remote); raw != list || digest.FromString(raw).String() != d {
		t.Errorf("%s\n%s", raw, list)
	}
	// Without it they are compressed.
	s.Kimg("manifest", "push", "localhost/l:1", "docker://"+addr+"/team/l:gzip")
	if x := seen(t, lab.Skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+addr+"/team/l:gzip")); len(x.Manifests) != 2 {
		t.Errorf("%+v", x)
	}
	for tool, to := range map[string]string{"podman": "p", "buildah": "b"} {
		s.Peer(tool, "manifest", "push", "--all", "--tls-verify=false", "localhost/l:1", "docker://"+addr+"/team/l:"+to)
		if x := seen(t, s.Kimg("manifest", "inspect", "docker://"+addr+"/team/l:"+to)); len(x.Manifests) != 2 {
			t.Errorf("%s: %+v", tool, x)
		}
	}
	// Only now: once podman 4.3 has pulled an image with another manifest, it cannot push a list of it, its own neither.
	s.Peer("podman", "pull", "--tls-verify=false", "--arch", "arm64", addr+"/team/l:gzip")
	// A commit of kimg's goes into a list of buildah's, and the other way round.
	s.Peer("buildah", "manifest", "create", "localhost/c:1")
	c := s.Kimg("from", ids[0])
	s.Kimg("commit", "--manifest", "localhost/c:1", c)
	s.Kimg("rm", c)
	b := s.Peer("buildah", "from", "scratch")
	s.Peer("buildah", "commit", "--manifest", "localhost/c:1", b)
	s.Peer("buildah", "rm", b)
	if out := s.Kimg("manifest", "inspect", "--json", "localhost/c:1"); strings.Count(out, `"imageID"`) != 2 {
		t.Errorf("%s", out)
	}
	s.CheckClean()
}

// TestManifestElsewhere is B14 too: a list of images that are in registries and layouts only keeps their digests, and podman pushes it as well as kimg.
func TestManifestElsewhere(t *testing.T) {
	testenv.Need(t, "podman", "skopeo")
	addr, dir := trusting(t), lab.TempDir(t)
	s := lab.NewStore(t, "")
	s.Kimg("manifest", "create", "localhost/far:1")
	for i, place := range []string{"one", "two"} {
		layout := filepath.Join(dir, place)
		img := testimage.NewImage(uint64(50+i), testimage.ImageOptions{Layers: 2, Gzip: true})
		if err := img.WriteOCI(layout, "t"); err != nil {
			t.Fatal(err)
		}
		ref := "docker://" + addr + "/" + place + ":t"
		s.Kimg("copy", "--preserve-digests", "oci:"+layout+":t", ref)
		s.Kimg("manifest", "add", "--arch", []string{"amd64", "arm64"}[i], "localhost/far:1", ref)
	}
	if left := s.Kimg("images", "--quiet"); len(strings.Fields(left)) != 1 {
		t.Errorf("more than the list is in the store: %s", left)
	}
	list := s.Kimg("manifest", "inspect", "--raw", "localhost/far:1")
	d := s.Kimg("manifest", "push", "localhost/far:1", "docker://"+addr+"/all:kimg")
	s.Peer("podman", "manifest", "push", "--all", "--tls-verify=false", "localhost/far:1", "docker://"+addr+"/all:podman")
	for _, tag := range []string{"kimg", "podman"} {
		if raw := lab.Skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+addr+"/all:"+tag); raw != list || digest.FromString(raw).String() != d {
			t.Errorf("%s: %s\n%s", tag, raw, list)
		}
	}
	// The images are there: the list goes alone, under another name.
	if out := s.Kimg("manifest", "push", "--all=false", "localhost/far:1", "docker://"+addr+"/all:alone"); out != d {
		t.Errorf("%s, not %s", out, d)
	}
	if r := s.Try("manifest", "push", "--all=false", "localhost/far:1", "docker://"+addr+"/empty:1"); r.Code != 1 {
		t.Errorf("without its images: %+v", r)
	}
	out := filepath.Join(dir, "out")
	s.Kimg("manifest", "push", "--rm", "localhost/far:1", "oci:"+out+":x")
	s.Kimg("validate", "oci:"+out+":x")
	if r := s.Try("manifest", "exists", "localhost/far:1"); r.Code != 1 {
		t.Errorf("%+v", r)
	}
	s.CheckClean()
}
