package faults

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/testimage"
)

// Registries answer in many ways when something is deleted; what one does not do is class unsupported.
func TestDelete(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(http.ResponseWriter, *http.Request, []byte)
		want kimg.Class
	}{
		"202": {Status(202, ""), ""}, "200": {Status(200, ""), ""}, "204": {Status(204, ""), ""},
		"405": {Status(405, "UNSUPPORTED"), kimg.ErrUnsupported}, "bare 405": {Status(405, ""), kimg.ErrUnsupported},
		"404": {Status(404, "MANIFEST_UNKNOWN"), kimg.ErrNotFound}, "403": {Status(403, "DENIED"), kimg.ErrAuth},
	} {
		t.Run(name, func(t *testing.T) {
			s := full()
			s.Fault = &Fault{Kind: "delete", Do: c.do}
			ref, err := image.Parse("docker://" + serve(t, s) + "/app:1")
			if err != nil {
				t.Fatal(err)
			}
			conv := image.New(image.Options{Sys: system(t), Retries: -1})
			defer conv.Close()
			ends(t, conv.Delete(context.Background(), ref), c.want)
			want := "/v2/app/manifests/" + testimage.Digest(sample.Manifest)
			if !slices.ContainsFunc(s.Asked(), func(q Request) bool { return q.Kind == "delete" && q.Path == want }) {
				t.Error("nothing was deleted")
			}
		})
	}
}

// A list of tags that has no end has one; one of many pages is no matter of time.
func TestTags(t *testing.T) {
	for pages, want := range map[int]kimg.Class{300: "", 1 << 30: kimg.ErrLimit} {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("last"))
			if n < pages-1 {
				w.Header().Set("Link", fmt.Sprintf("<%s?last=%d>; rel=next", r.URL.Path, n+1))
			}
			_, _ = fmt.Fprintf(w, `{"name":"app","tags":["t%d"]}`, n)
		})
		ref, err := image.Parse("docker://" + serve(t, h) + "/app")
		if err != nil {
			t.Fatal(err)
		}
		conv := image.New(image.Options{Sys: system(t), Retries: -1})
		defer conv.Close()
		tags, err := conv.Tags(t.Context(), ref)
		ends(t, err, want)
		if err == nil && len(tags) != pages {
			t.Errorf("%d tags", len(tags))
		}
	}
}

// What somebody else has sent since it was asked for is not sent, and no failure.
func TestMeanwhile(t *testing.T) {
	dir := t.TempDir()
	if err := sample.WriteOCI(dir, "a"); err != nil {
		t.Fatal(err)
	}
	s := full()
	s.Fault = &Fault{Kind: "head", Times: 1, Do: Status(404, "")}
	_, err := copyImage(t, image.Options{}, "oci:"+dir+":a", "docker://"+serve(t, s)+"/app:2")
	ends(t, err, "")
	if slices.ContainsFunc(s.Asked(), func(q Request) bool { return q.Kind == "post" }) || s.Manifest("app", "2") == nil {
		t.Error("not found in time, or not there")
	}
}

// The image library sends blobs under sha256: one that the manifest names otherwise would not be found there.
func TestOtherDigests(t *testing.T) {
	s := full()
	blob := sample.Layers[0].Blob
	other := digest.SHA512.FromBytes(blob).String()
	manifest := []byte(strings.Replace(string(sample.Manifest), testimage.Digest(blob), other, 1))
	s.PutManifest("app", "2", manifest, sample.ManifestType)
	s.putBlob("app", other, blob)
	src, dst := "docker://"+serve(t, s)+"/app:2", &Registry{}
	_, err := copyImage(t, image.Options{}, src, "oci:"+t.TempDir()+"/x:1")
	ends(t, err, "")
	_, err = copyImage(t, image.Options{}, src, "docker://"+serve(t, dst)+"/app:2")
	ends(t, err, kimg.ErrUnsupported)
	if names := dst.Names(); len(names) > 0 {
		t.Errorf("%v is there", names)
	}
}

// A manifest that is called by another digest than sha256 is checked against that.
func TestOtherManifests(t *testing.T) {
	s := full()
	d := digest.SHA512.FromBytes(sample.Manifest).String()
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"amd64"}}]}`, sample.ManifestType, d, len(sample.Manifest))
	s.PutManifest("app", "list", []byte(index), "application/vnd.oci.image.index.v1+json")
	host := serve(t, s)
	for data, want := range map[string]kimg.Class{string(sample.Manifest): "", string(sample.Manifest) + " ": kimg.ErrIntegrity} {
		s.manifests["app@"+d] = document{[]byte(data), sample.ManifestType}
		for _, name := range []string{":list", "@" + d} {
			_, err := copyImage(t, image.Options{Platform: &ispec.Platform{OS: "linux", Architecture: "amd64"}}, "docker://"+host+"/app"+name, "dir:"+t.TempDir()+"/x")
			ends(t, err, want)
		}
		if want == "" {
			_, err := copyImage(t, image.Options{}, "docker://"+host+"/app:list", "docker://"+serve(t, &Registry{})+"/app:1")
			ends(t, err, kimg.ErrUnsupported)
		}
	}
}
