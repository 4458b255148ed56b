//go:build interop

package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/lab"
)

// images makes one image for each platform and returns their IDs.
func images(t *testing.T, s *lab.Store, platforms ...string) (ids []string) {
	t.Helper()
	dir := lab.TempDir(t)
	for _, p := range platforms {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(p), 0o644); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.Kimg("import", "--platform", p, dir))
	}
	return ids
}

// inspected is what kimg inspect says of an image.
func inspected(t *testing.T, s *lab.Store, image string) (v struct {
	ID, Digest string
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.Kimg("inspect", "--type", "image", image)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPodmanReadsLists: podman lists, inspects, changes, copies and removes a manifest list that kimg put.
func TestPodmanReadsLists(t *testing.T) {
	testenv.Root(t)
	s := lab.NewStore(t, "")
	ids := images(t, s, "linux/amd64", "linux/arm64")
	st, err := store.Open(store.Options{Root: s.Root, RunRoot: s.RunRoot, Driver: "overlay"})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	statement := []byte(`{"_type":"x"}`)
	blob := ispec.Descriptor{MediaType: "application/vnd.in-toto+json", Digest: digest.FromBytes(statement), Size: int64(len(statement))}
	attestation, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ispec.MediaTypeImageManifest, "config": blob, "layers": []any{blob}})
	if err != nil {
		t.Fatal(err)
	}
	rec := store.ListRecord{Names: []string{"localhost/list:1"}, Instances: map[digest.Digest]string{}, Data: map[digest.Digest][]byte{
		digest.FromBytes(attestation): attestation, blob.Digest: statement,
	}}
	index := ispec.Index{MediaType: ispec.MediaTypeImageIndex, Annotations: map[string]string{"a": "b"}}
	index.SchemaVersion = 2
	for i, id := range ids {
		img, err := st.Record(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := img.Manifest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rec.Instances[img.Digest] = id
		index.Manifests = append(index.Manifests, ispec.Descriptor{
			MediaType: ispec.MediaTypeImageManifest, Digest: img.Digest, Size: int64(len(data)),
			Platform: &ispec.Platform{OS: "linux", Architecture: []string{"amd64", "arm64"}[i]},
		})
	}
	index.Manifests = append(index.Manifests, ispec.Descriptor{
		MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromBytes(attestation), Size: int64(len(attestation)), Platform: &ispec.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": string(index.Manifests[0].Digest)},
	})
	put := func(name string, x ispec.Index, rec store.ListRecord) (*store.Image, string) {
		data, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		rec.Names, rec.Index = []string{name}, data
		list, err := st.PutList(t.Context(), rec)
		if err != nil {
			t.Fatal(err)
		}
		return list, string(data)
	}
	list, data := put("localhost/list:1", index, rec)
	index.Manifests, rec.Data = index.Manifests[:2], nil
	_, plain := put("localhost/plain:1", index, rec)

	var seen ispec.Index
	if err := json.Unmarshal([]byte(s.Peer("podman", "manifest", "inspect", "localhost/list:1")), &seen); err != nil || len(seen.Manifests) != 3 || seen.Manifests[1].Digest != index.Manifests[1].Digest {
		t.Errorf("podman manifest inspect: %v, %+v", err, seen)
	}
	if out := s.Peer("podman", "images", "--no-trunc"); !strings.Contains(out, list.ID) {
		t.Errorf("podman images: %s", out)
	}
	if out := lab.Skopeo(t, "inspect", "--raw", s.Reference("localhost/list:1")); out != data {
		t.Errorf("skopeo inspect --raw: %s", out)
	}
	if id := s.Peer("podman", "inspect", "--type", "image", "--format", "{{.Id}}", "localhost/list:1"); id != ids[0] || id != inspected(t, s, "localhost/list:1").ID {
		t.Errorf("podman inspect: %s", id)
	}
	// Podman copies what is unpacked; it has no form for attestations.
	out := filepath.Join(lab.TempDir(t), "out")
	s.Peer("podman", "manifest", "push", "--all", "localhost/plain:1", "dir:"+out)
	if pushed, err := os.ReadFile(filepath.Join(out, "manifest.json")); err != nil || string(pushed) != plain {
		t.Errorf("podman manifest push: %v\n%s\n%s", err, pushed, plain)
	}
	s.Peer("podman", "tag", "localhost/plain:1", "localhost/more")
	s.Kimg("rmi", "localhost/plain:1") // only a name: podman 4.3 would remove the instance instead
	if left := s.Kimg("images", "--quiet", "--no-trunc", "localhost/more"); left != digest.FromString(plain).Encoded() {
		t.Errorf("kimg images: %s", left)
	}
	s.Kimg("tag", ids[1], "localhost/kept")
	// What only the list leads to goes with it, what has a name or another list stays.
	for _, step := range []struct {
		name string
		left int
	}{{"localhost/list:1", 3}, {"localhost/more", 1}} {
		s.Kimg("rmi", step.name)
		if left := s.Kimg("images", "--quiet"); len(strings.Fields(left)) != step.left {
			t.Errorf("after %s: %s", step.name, left)
		}
	}
	if left := s.Kimg("images", "--quiet", "--no-trunc"); left != ids[1] {
		t.Errorf("%s is left of %v", left, ids)
	}
	s.Kimg("untag", ids[1])
	put("localhost/again:1", index, rec)
	s.Kimg("rmi", "--all")
	if left := s.Kimg("images", "--quiet"); left != "" {
		t.Errorf("after rmi --all: %s", left)
	}
	s.CheckClean()
}

// TestReadsPodmansLists: kimg finds, names and removes what podman manifest makes, as podman does.
func TestReadsPodmansLists(t *testing.T) {
	testenv.Need(t, "podman")
	s := lab.NewStore(t, "")
	ids := images(t, s, "linux/arm/v6", "linux/amd64")
	s.Peer("podman", "manifest", "create", "localhost/list")
	if r := s.Try("inspect", "localhost/list"); r.Code != 1 || !strings.Contains(r.Stderr, "without an image for") {
		t.Errorf("an empty list: %+v", r)
	}
	for _, id := range ids {
		s.Peer("podman", "manifest", "add", "localhost/list", "containers-storage:"+id)
	}
	s.Peer("podman", "manifest", "annotate", "--variant", "v6", "--arch", "arm", "localhost/list", inspected(t, s, ids[0]).Digest)
	if v := inspected(t, s, "localhost/list"); v.ID != ids[1] {
		t.Errorf("inspect: %s", v.ID)
	}
	for platform, id := range map[string]string{"linux/arm/v7": ids[0], "linux/amd64/v3": ids[1]} {
		c := s.Kimg("from", "--platform", platform, "localhost/list")
		if out := s.Kimg("inspect", "--type", "container", "--format", "{{.ImageID}}", c); out != id {
			t.Errorf("%s: %s", platform, out)
		}
		s.Kimg("rm", c)
	}
	s.Kimg("tag", "localhost/list", "localhost/more")
	digests := s.Kimg("images", "--digests", "--no-trunc", "localhost/more")
	raw := lab.Skopeo(t, "inspect", "--raw", s.Reference("localhost/more"))
	if n := strings.Count(digests, digest.FromString(raw).String()); n != 2 {
		t.Errorf("the list as it is now %d times in\n%s", n, digests)
	}
	if out := s.Peer("podman", "images", "--format", "{{.Repository}}"); !strings.Contains(out, "localhost/more") {
		t.Errorf("podman images: %s", out)
	}
	s.Kimg("rmi", "localhost/more")
	s.Kimg("rmi", "localhost/list")
	if left := strings.Fields(s.Kimg("images", "--quiet", "--no-trunc")); len(left) != 2 || !slices.Contains(left, ids[0]) || !slices.Contains(left, ids[1]) {
		t.Errorf("%v is left of %v", left, ids)
	}
	s.CheckClean()
}
