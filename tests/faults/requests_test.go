package faults

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg/convert/image"
)

// kinds are those of the requests that came, in order.
func (s *Registry) kinds() string {
	var all []string
	for _, q := range s.Asked() {
		all = append(all, q.Kind)
	}
	return strings.Join(all, " ")
}

// What a registry is asked for, and nothing else: one login and one question what it is for each session, every document and blob once. That
// the library asks for a blob once more before it sends it is its own doing.
func TestRequests(t *testing.T) {
	s, to, sys := full(), &Registry{}, system(t)
	s.User, s.Token = "me:secret", true
	sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
	src, there, dir := "docker://"+serve(t, s)+"/app:1", "docker://"+serve(t, to)+"/app:", t.TempDir()
	put := "head head post patch put "
	for _, c := range []struct {
		name, src, dst string
		o              image.Options
		asked, sent    string
	}{
		{"pull", src, "oci:" + dir + "/a:x", image.Options{}, "ping token manifest blob blob blob", ""},
		{"push", "oci:" + dir + "/a:x", there + "1", image.Options{}, "", "ping " + put + put + put + "publish"},
		{"push again", "oci:" + dir + "/a:x", there + "2", image.Options{}, "", "ping head head head publish"},
		{"copy", src, there + "3", image.Options{}, "ping token manifest blob", "ping head head head publish"},
		{"copy with what is about it", src, there + "4", image.Options{Referrers: true},
			"ping token manifest blob referrers token referrers manifest manifest manifest manifest", "ping head head head publish"},
	} {
		c.o.Sys = sys
		if _, err := copyImage(t, c.o, c.src, c.dst); err != nil {
			t.Fatal(c.name, err)
		}
		if asked, sent := s.kinds(), to.kinds(); asked != c.asked || sent != c.sent {
			t.Errorf("%s: asked for %q, sent %q", c.name, asked, sent)
		}
	}
	c := image.New(image.Options{Sys: sys})
	defer c.Close()
	ref, err := image.Parse(src)
	if err == nil {
		_, err = c.Inspect(t.Context(), ref)
	}
	if asked := s.kinds(); err != nil || asked != "ping token manifest blob" {
		t.Errorf("inspect: %q, %v", asked, err)
	}
}

// What tags about an image lead to is found where the registry sends one to, without a login, and with a token that is taken back.
func TestTagsAbout(t *testing.T) {
	s, other, to, sys := full(), full(), &Registry{}, system(t)
	cosign := other.artifact(nil, tagOf(sample.Manifest)+".sig", "one")
	s.PutBlob("app", []byte("one"))
	s.PutBlob("app", []byte("{}"))
	s.User, s.Token, s.Uses = "me:secret", true, 2
	sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
	_, port, _ := strings.Cut(serve(t, other), ":")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sig") {
			http.Redirect(w, r, "http://localhost:"+port+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		s.ServeHTTP(w, r)
	})
	if _, err := copyImage(t, image.Options{Sys: sys, Referrers: true}, "docker://"+serve(t, h)+"/app:1", "docker://"+serve(t, to)+"/app:1"); err != nil {
		t.Fatal(err)
	}
	if got := to.Manifest("app", tagOf(sample.Manifest)+".sig"); string(got) != string(cosign) {
		t.Errorf("%s", got)
	}
	if asked := other.Asked(); len(asked) != 1 || slices.ContainsFunc(asked, func(q Request) bool { return q.Authorization != "" }) {
		t.Errorf("%+v", asked)
	}
}
