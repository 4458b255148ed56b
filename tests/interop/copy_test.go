//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

// B4, B14, pain 8: what is pulled and pushed keeps its digest, an index with all it has; podman and skopeo read it; the second push
// sends and reads nothing, and one of a changed image only the new layer.
func TestRegistryRoundTrip(t *testing.T) {
	testenv.Root(t)
	testenv.Need(t, "skopeo", "podman")
	dir := lab.TempDir(t)
	count := countBlobs(t, lab.Registry(t))
	addr, other := count.addr, lab.Registry(t)
	lay := filepath.Join(dir, "lay")
	var entries []string
	for i, arch := range []string{"amd64", "arm64"} {
		img := testimage.NewImage(uint64(70+i), testimage.ImageOptions{Layers: 2, Gzip: true, Change: func(c map[string]any) { c["architecture"] = arch }})
		if err := img.WriteOCI(lay, arch); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`,
			img.ManifestType, testimage.Digest(img.Manifest), len(img.Manifest), arch))
	}
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + strings.Join(entries, ",") + `],"annotations":{"a":"b"}}`)
	digest := testimage.Digest(index)
	blob := filepath.Join(lay, "blobs", "sha256", digest[7:])
	top := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"all"}}]}`, digest, len(index))
	for name, data := range map[string][]byte{blob: index, filepath.Join(lay, "index.json"): []byte(top)} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := lab.NewStore(t, filepath.Join(dir, "store"))
	is := func(what, got string) {
		t.Helper()
		if strings.TrimSpace(got) != digest {
			t.Errorf("%s: %s and not %s", what, got, digest)
		}
	}
	is("copy", s.Kimg("copy", "--all", "--tls-verify=false", "oci:"+lay+":all", "docker://"+addr+"/app:1"))
	s.Kimg("pull", "--all", "--keep-blobs", "--tls-verify=false", addr+"/app:1")
	is("push elsewhere", s.Kimg("push", "--all", "--preserve-digests", "--tls-verify=false", addr+"/app:1", other+"/app:1"))
	is("skopeo", testimage.Digest(bytes.TrimSpace([]byte(lab.Skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+other+"/app:1")))))
	s.Peer("podman", "pull", "-q", "--tls-verify=false", other+"/app:1")

	count.take()
	is("push again", s.Kimg("push", "--all", "--preserve-digests", "--tls-verify=false", addr+"/app:1"))
	if up, down := count.take(); up > 0 || down > 0 {
		t.Errorf("the second push sent %d bytes of blobs and read %d", up, down)
	}
	// A changed image: only its layer is sent.
	c := strings.TrimSpace(s.Kimg("from", "--pull", "never", addr+"/app:1"))
	s.Kimg("add", c, lay+"/index.json", "/added")
	s.Kimg("commit", c, addr+"/app:2")
	s.Kimg("push", "--tls-verify=false", addr+"/app:2")
	up, down := count.take()
	if up == 0 || up > 4096 || down > 0 {
		t.Errorf("the push of a changed image sent %d bytes of blobs and read %d", up, down)
	}
	s.Kimg("push", "--tls-verify=false", addr+"/app:2")
	if up, down := count.take(); up > 0 || down > 0 {
		t.Errorf("its second push sent %d bytes and read %d", up, down)
	}
	if tags := strings.Fields(s.Kimg("list-tags", "--tls-verify=false", addr+"/app")); len(tags) != 2 {
		t.Errorf("tags %q", tags)
	}
	lab.Skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+addr+"/app:2", "dir:"+dir+"/skopeo")
	s.CheckClean()
}

// B4, B10: when images are fetched, by pull and by from.
func TestPullPolicies(t *testing.T) {
	testenv.Root(t)
	dir := lab.TempDir(t)
	count := countBlobs(t, lab.Registry(t))
	addr := count.addr
	push := func(seed uint64) string {
		t.Helper()
		img := testimage.NewImage(seed, testimage.ImageOptions{Layers: 1, Gzip: true})
		layout := fmt.Sprintf("%s/%d", dir, seed)
		if err := img.WriteOCI(layout, "t"); err != nil {
			t.Fatal(err)
		}
		lab.Must(t, nil, lab.Kimg(t), "copy", "-q", "--dest-tls-verify=false", "oci:"+layout+":t", "docker://"+addr+"/app:1")
		count.take()
		return strings.TrimPrefix(testimage.Digest(img.Config), "sha256:")
	}
	s := lab.NewStore(t, filepath.Join(dir, "store"))
	pull := func(policy, want string, fetched bool) {
		t.Helper()
		if got := strings.TrimSpace(s.Kimg("pull", "--tls-verify=false", "--policy", policy, addr+"/app:1")); got != want {
			t.Errorf("%s: %s and not %s", policy, got, want)
		}
		if _, down := count.take(); (down > 4096) != fetched {
			t.Errorf("%s: %d bytes of blobs came", policy, down)
		}
	}
	if r := s.Try("pull", "--policy", "never", addr+"/app:1"); r.Code != 1 || !strings.Contains(r.Stderr, "notfound") {
		t.Errorf("%+v", r)
	}
	first := push(81)
	pull("missing", first, true)
	pull("always", first, false)
	second := push(82)
	pull("missing", first, false)
	pull("never", first, false)
	pull("newer", second, true)
	third := push(83)
	pull("always", third, true)
	if r := s.Try("pull", "--tls-verify=false", "--policy", "newer", addr+"/nosuch:1"); r.Code != 1 || !strings.Contains(r.Stderr, "notfound") {
		t.Errorf("%+v", r)
	}
	// Nobody is asked who need not be; when somebody must be and nobody answers, newer does with what there is.
	s.Kimg("tag", third, "127.0.0.1:1/app:1")
	s.Kimg("from", "127.0.0.1:1/app:1")
	s.Kimg("from", "--pull", "newer", "127.0.0.1:1/app:1")
	if r := s.Try("from", "--pull", "always", "127.0.0.1:1/app:1"); r.Code != 1 || !strings.Contains(r.Stderr, "network") {
		t.Errorf("%+v", r)
	}
}
