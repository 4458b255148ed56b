package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/testimage"
)

const indexType = "application/vnd.oci.image.index.v1+json"

// artifact puts an artifact about a manifest into a registry, under a tag unless that is empty.
func (s *Registry) artifact(subject []byte, tag string, blobs ...string) []byte {
	var layers []string
	for _, b := range blobs {
		s.PutBlob("app", []byte(b))
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":%q,"size":%d}`, Digest([]byte(b)), len(b)))
	}
	s.PutBlob("app", []byte("{}"))
	about := ""
	if subject != nil {
		about = fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, sample.ManifestType, Digest(subject), len(subject))
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x.about","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[%s]%s}`,
		sample.ManifestType, Digest([]byte("{}")), strings.Join(layers, ","), about)
	s.PutManifest("app", tag, manifest, sample.ManifestType)
	return manifest
}

// listed puts an index of manifests there as registries without the API have it.
func (s *Registry) listed(subject []byte, manifests ...[]byte) {
	var all []string
	for _, m := range manifests {
		all = append(all, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, sample.ManifestType, Digest(m), len(m)))
	}
	s.PutManifest("app", tagOf(subject), fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, indexType, strings.Join(all, ",")), indexType)
}

func tagOf(manifest []byte) string { return strings.Replace(Digest(manifest), ":", "-", 1) }

// What is about an image comes along, and what is about that: by the API of registries or by its tag, to registries with and without it;
// also what cosign tags. What is not there is not missed, and what another one put there stays.
func TestReferrers(t *testing.T) {
	for n := range 8 {
		s, to := full(), &Registry{Referrers: n&2 != 0}
		s.Referrers = n&1 != 0
		if n&4 != 0 {
			s.User, s.Token, to.User = "me:secret", true, "me:secret"
		}
		one, two := s.artifact(sample.Manifest, "", "one"), s.artifact(sample.Manifest, "", "two", "three")
		deep := s.artifact(two, "", "four")
		if !s.Referrers {
			s.listed(sample.Manifest, one, two)
			s.listed(two, deep)
		}
		cosign := s.artifact(nil, tagOf(sample.Manifest)+".sig", "five")
		other := to.artifact(sample.Manifest, "", "six")
		if !to.Referrers {
			to.listed(sample.Manifest, other)
		}
		sys := system(t)
		sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
		dst := "docker://" + serve(t, to) + "/app:1"
		for range 2 {
			if _, err := copyImage(t, image.Options{Referrers: true, Sys: sys}, "docker://"+serve(t, s)+"/app:1", dst); err != nil {
				t.Fatal(n, err)
			}
		}
		for name, want := range map[string][]byte{tagOf(sample.Manifest) + ".sig": cosign, Digest(one): one, Digest(two): two, Digest(deep): deep, Digest(other): other, "1": sample.Manifest} {
			if got := to.Manifest("app", name); !bytes.Equal(got, want) {
				t.Errorf("%d: %s: %s", n, name, got)
			}
		}
		for subject, want := range map[string][][]byte{tagOf(sample.Manifest): {one, two, other}, tagOf(two): {deep}} {
			var index struct {
				Manifests []struct{ Digest, ArtifactType string }
			}
			data := to.Manifest("app", subject)
			if to.Referrers && data != nil || !to.Referrers && json.Unmarshal(data, &index) != nil {
				t.Fatalf("%d: %s", n, data)
			}
			if to.Referrers {
				continue
			}
			for _, m := range want {
				if !slices.ContainsFunc(index.Manifests, func(d struct{ Digest, ArtifactType string }) bool { return d.Digest == Digest(m) }) {
					t.Errorf("%d: %s", n, data)
				}
			}
			if len(index.Manifests) != len(want) {
				t.Errorf("%d: %s", n, data)
			}
		}
	}
}

// What is about an image and does not come along is told: the image becomes another, or goes where nothing is about others.
func TestReferrersStayBehind(t *testing.T) {
	for n, format := range []convert.Format{"", convert.DockerV2S2} {
		s, to := full(), &Registry{}
		s.listed(sample.Manifest, s.artifact(sample.Manifest, "", "one"))
		dst := "oci:" + t.TempDir() + "/x"
		if format != "" {
			dst = "docker://" + serve(t, to) + "/app:1"
		}
		var log bytes.Buffer
		o := image.Options{Referrers: true, Format: format, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		if _, err := copyImage(t, o, "docker://"+serve(t, s)+"/app:1", dst); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "stays behind") || !strings.Contains(log.String(), "manifests=1") {
			t.Errorf("%d: %q", n, log.String())
		}
	}
}

// A registry that says wrong things about what is about an image, or says too much, is refused in one line. Nothing goes on for ever.
func TestHostileReferrers(t *testing.T) {
	other := testimage.NewImage(64, testimage.ImageOptions{})
	entry := func(digest string, size int) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, sample.ManifestType, digest, size)
	}
	answer := func(link string, entries ...string) func(http.ResponseWriter, *http.Request, []byte) {
		return func(w http.ResponseWriter, r *http.Request, _ []byte) {
			if link != "" {
				w.Header().Set("Link", fmt.Sprintf("<%s>; rel=next", strings.ReplaceAll(link, "PATH", r.URL.Path)))
			}
			w.Header().Set("Content-Type", indexType)
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, strings.Join(entries, ","))
		}
	}
	var many []string
	for n := range 1001 {
		many = append(many, entry(Digest(fmt.Append(nil, n)), n))
	}
	elsewhere := &Registry{}
	host := serve(t, elsewhere)
	for _, c := range []scenario{
		{"status 500 once", Fault{Times: 1, Do: Status(500, "")}, ""},
		{"status 429 once", Fault{Times: 1, Do: busy}, ""},
		{"status 503 for ever", Fault{Do: Status(503, "")}, kimg.ErrNetwork},
		{"status 401", Fault{Do: Status(401, "")}, kimg.ErrAuth},
		{"status 400", Fault{Do: Status(400, "")}, ""},
		{"reset for ever", Fault{Do: Reset}, kimg.ErrNetwork},
		{"silent once", Fault{Times: 1, Do: Silence}, ""},
		{"a page of a proxy", Fault{Do: Other(func([]byte) []byte { return []byte("<html>") })}, ""},
		{"not JSON", Fault{Do: answer("", "x")}, kimg.ErrInvalid},
		{"no digest", Fault{Do: answer("", entry("sha256:../..", 1))}, kimg.ErrInvalid},
		{"not there", Fault{Do: answer("", entry(Digest([]byte("gone")), 4))}, kimg.ErrNotFound},
		{"another size", Fault{Do: answer("", entry(Digest(sample.Manifest), 4))}, ""}, // the image itself: seen
		{"a wrong size", Fault{Do: answer("", entry(Digest(other.Manifest), 4))}, kimg.ErrIntegrity},
		{"about something else", Fault{Do: answer("", entry(Digest(other.Manifest), len(other.Manifest)))}, kimg.ErrInvalid},
		{"too many", Fault{Do: answer("", many...)}, kimg.ErrLimit},
		{"pages in a circle", Fault{Do: answer("PATH?again", many[:100]...)}, kimg.ErrLimit},
		{"empty pages", Fault{Do: answer("PATH?again")}, kimg.ErrInvalid},
		{"a page elsewhere", Fault{Do: answer("http://"+host+"/v2/app/referrers/x", many[0])}, kimg.ErrInvalid},
		{"redirected elsewhere", Fault{Do: func(w http.ResponseWriter, r *http.Request, _ []byte) {
			http.Redirect(w, r, "http://"+host+"/v2/", http.StatusFound)
		}}, kimg.ErrNetwork},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := full()
			s.User = "me:secret"
			s.PutManifest("app", "", other.Manifest, other.ManifestType)
			c.fault.Kind = "referrers"
			s.Fault = &c.fault
			sys := system(t)
			sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
			to := &Registry{}
			o := c.options()
			o.Referrers, o.Sys = true, sys
			_, err := copyImage(t, o, "docker://"+serve(t, s)+"/app:1", "docker://"+serve(t, to)+"/app:1")
			ends(t, err, c.want)
			if c.want != "" && len(to.Names()) > 0 {
				t.Errorf("%v is there", to.Names())
			}
		})
	}
	if asked := elsewhere.Asked(); len(asked) > 0 {
		t.Errorf("the other host saw %+v", asked)
	}
	// What is about each other cannot be made with digests, but a registry can say so.
	s := full()
	a := s.artifact(sample.Manifest, "", "one")
	s.listed(sample.Manifest, a, sample.Manifest)
	s.listed(a, a, sample.Manifest)
	if _, err := copyImage(t, image.Options{Referrers: true}, "docker://"+serve(t, s)+"/app:1", "docker://"+serve(t, &Registry{})+"/app:1"); err != nil {
		t.Error(err)
	}
}

// The question what is about an image gets a token of its own: what goes wrong then ends as it does for the library.
func TestReferrersTokens(t *testing.T) {
	for _, c := range []scenario{
		{"status 503 once", Fault{Times: 1, Do: Status(503, "")}, ""},
		{"status 429 once", Fault{Times: 1, Do: Status(429, "TOOMANYREQUESTS")}, ""},
		{"status 429 for ever", Fault{Do: Status(429, "TOOMANYREQUESTS")}, kimg.ErrRateLimit},
		{"status 503 for ever", Fault{Do: Status(503, "")}, kimg.ErrNetwork},
		{"status 403", Fault{Do: Status(403, "DENIED")}, kimg.ErrAuth},
		{"cut once", Fault{Times: 1, Do: Cut}, ""},
		{"half a token", Fault{Do: Other(func([]byte) []byte { return []byte(`{"token":"topsecret`) })}, kimg.ErrAuth},
		{"no token", Fault{Do: Other(func([]byte) []byte { return []byte("{}") })}, kimg.ErrAuth},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, to := full(), &Registry{}
			c.fault.Kind, c.fault.After = "token", 1
			s.User, s.Token, s.Fault = "me:secret", true, &c.fault
			o := c.options()
			o.Referrers, o.Sys = true, system(t)
			o.Sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
			_, err := copyImage(t, o, "docker://"+serve(t, s)+"/app:1", "docker://"+serve(t, to)+"/app:1")
			ends(t, err, c.want)
			if err != nil && (strings.Contains(err.Error(), "secret") || len(to.Names()) > 0) {
				t.Errorf("%v, and %v", err, to.Names())
			}
		})
	}
}
