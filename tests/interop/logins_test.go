//go:build interop

package interop

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

// tokens is a token server: me:secret may do anything, reader:reader only read.
type tokens struct {
	*lab.Authority
	mu   sync.Mutex
	seen []string // logins
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	s.mu.Lock()
	s.seen = append(s.seen, user+":"+password)
	s.mu.Unlock()
	if user != "" && user+":"+password != "me:secret" && user+":"+password != "reader:reader" {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
		return
	}
	access := []map[string]any{}
	for _, scope := range r.URL.Query()["scope"] {
		f := strings.SplitN(scope, ":", 3)
		actions := slices.DeleteFunc(strings.Split(f[2], ","), func(action string) bool { return user == "" || user == "reader" && action != "pull" })
		access = append(access, map[string]any{"type": f[0], "name": f[1], "actions": actions})
	}
	now := time.Now().Unix()
	token, err := s.Token(map[string]any{"iss": "kimg-test", "sub": user, "aud": r.URL.Query().Get("service"), "iat": now, "nbf": now - 1, "exp": now + 60, "jti": fmt.Sprint(now), "access": access})
	if err == nil {
		err = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 1})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// took returns the logins it saw since it was asked last.
func (s *tokens) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// hidden is the password of user it in the registry with HTTP basic authentication, as bcrypt has it.
const hidden = "it:$2y$04$abcdefghijklmnopqrstuuhZyWRsG7iAMo6rVsDQ6k6wZoOR22OE2\n"

// B9, P8, pain 16: registries with TLS, with token and basic authentication: every way to log in, on either side of a copy, and no login
// for whom it is not.
func TestRegistryLogins(t *testing.T) {
	dir, ca := lab.TempDir(t), lab.NewAuthority(t, time.Hour)
	auth := &tokens{Authority: ca}
	server := httptest.NewUnstartedServer(auth)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.TLS}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	secure := []string{"REGISTRY_HTTP_TLS_CERTIFICATE=" + ca.Cert, "REGISTRY_HTTP_TLS_KEY=" + ca.Key}
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	token := lab.Registry(t, append([]string{"REGISTRY_AUTH=token", "REGISTRY_AUTH_TOKEN_REALM=" + server.URL + "/token", "REGISTRY_AUTH_TOKEN_SERVICE=kimg",
		"REGISTRY_AUTH_TOKEN_ISSUER=kimg-test", "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE=" + ca.Cert}, secure...)...)
	basic := lab.Registry(t, append([]string{"REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM=kimg", "REGISTRY_AUTH_HTPASSWD_PATH=" + write("htpasswd", hidden)}, secure...)...)
	plain, shown := watchedRegistry(t)

	img := testimage.NewImage(81, testimage.ImageOptions{Layers: 3, Gzip: true})
	if err := img.WriteOCI(filepath.Join(dir, "lay"), "a"); err != nil {
		t.Fatal(err)
	}
	lay, digest, s := "oci:"+filepath.Join(dir, "lay")+":a", testimage.Digest(img.Manifest), lab.NewStore(t, filepath.Join(dir, "store"))
	entry := func(host, login string) string {
		return fmt.Sprintf(`%q:{"auth":%q}`, host, base64.StdEncoding.EncodeToString([]byte(login)))
	}
	both := write("auth.json", `{"auths":{`+entry(token, "me:secret")+`,`+entry(basic, "it:hidden")+`}}`)
	s.Env = []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "XDG_CONFIG_HOME=" + dir}
	must := func(want string, args ...string) {
		t.Helper()
		if got := s.Kimg(args...); !strings.Contains(got, want) {
			t.Errorf("kimg %s: %q", strings.Join(args, " "), got)
		}
	}
	fails := func(class string, args ...string) {
		t.Helper()
		r := s.Try(args...)
		if r.Code != 1 || !strings.HasPrefix(r.Stderr, "kimg: "+class+": ") || strings.Count(r.Stderr, "\n") != 1 || strings.Contains(r.Stderr, "wrongly") {
			t.Errorf("kimg %s: exit %d, %q, and not class %s", strings.Join(args, " "), r.Code, r.Stderr, class)
		}
	}
	at := func(host, name string) string { return "docker://" + host + "/" + name }

	// Who may not.
	fails("tls", "copy", lay, at(token, "app:1"))
	fails("tls", "list-tags", "--creds", "me:secret", token+"/app")
	fails("auth", "copy", "--cert-dir", ca.Dir, lay, at(token, "app:1"))
	fails("auth", "copy", "--tls-verify=false", lay, at(basic, "app:1"))
	fails("network", "copy", lay, at(plain, "app:1"))
	if seen := auth.took(); slices.Contains(seen, "me:secret") {
		t.Errorf("a token server that nobody verified saw %v", seen)
	}
	for _, host := range []string{token, basic} {
		wrong := []string{"--cert-dir", ca.Dir, "--creds", "me:wrongly"}
		fails("auth", append([]string{"copy", lay, at(host, "app:1")}, wrong...)...)
		for _, command := range []string{"pull", "list-tags", "inspect", "delete"} {
			fails("auth", append([]string{command, at(host, "app")}, wrong...)...)
		}
	}

	// Options for each side.
	must(digest, "copy", "--dest-cert-dir", ca.Dir, "--dest-creds", "me:secret", lay, at(token, "app:1"))
	must(digest, "copy", "--src-cert-dir", ca.Dir, "--src-creds", "reader:reader", "--dest-tls-verify=false", "--dest-authfile", both, at(token, "app:1"), at(basic, "app:1"))
	must(digest, "copy", "--cert-dir", ca.Dir, "--src-authfile", both, "--dest-creds", "me:secret", at(basic, "app:1"), at(token, "again:1"))
	must(digest, "copy", "--src-cert-dir", ca.Dir, "--src-creds", "it:hidden", "--dest-tls-verify=false", at(basic, "app:1"), at(plain, "app:1"))
	fails("tls", "copy", "--dest-cert-dir", ca.Dir, "--src-creds", "me:secret", at(token, "app:1"), at(basic, "x:1"))
	fails("notfound", "copy", "--authfile", filepath.Join(dir, "nosuch"), lay, at(token, "x:1"))

	// Who may read may not write, on the same registry and in one command.
	fails("auth", "copy", "--cert-dir", ca.Dir, "--creds", "reader:reader", at(token, "app:1"), at(token, "mine:1"))
	must(digest, "copy", "--cert-dir", ca.Dir, "--src-creds", "reader:reader", "--dest-creds", "me:secret", at(token, "app:1"), at(token, "mine:1"))
	fails("auth", "delete", "--cert-dir", ca.Dir, "--creds", "reader:reader", at(token, "mine:1"))

	// A file with logins for several, by flag and by variable; everything else that speaks to a registry.
	s.Env = append(s.Env, "REGISTRY_AUTH_FILE="+both)
	for _, host := range []string{token, basic} {
		must("", "pull", "--cert-dir", ca.Dir, host+"/app:1")
		must("sha256:", "push", "--tls-verify=false", host+"/app:1", host+"/pushed:1")
		must(digest, "copy", "--cert-dir", ca.Dir, "--additional-tag", "2", at(host, "app:1"), at(host, "pushed:3"))
		must("2\n", "list-tags", "--cert-dir", ca.Dir, host+"/pushed")
		must(digest, "inspect", "--cert-dir", ca.Dir, at(host, "pushed:2"))
		must("", "delete", "--cert-dir", ca.Dir, at(host, "pushed:2"))
		fails("notfound", "inspect", "--cert-dir", ca.Dir, at(host, "pushed:3"))
	}
	must(digest, "copy", "--cert-dir", ca.Dir, at(token, "app:1"), at(basic, "fromfile:1"))
	must(digest, "copy", "--src-cert-dir", ca.Dir, "--dest-tls-verify=false", at(token, "app:1"), at(plain, "fromfile:1"))
	if seen := auth.took(); slices.ContainsFunc(seen, func(login string) bool { return strings.HasPrefix(login, "it:") }) {
		t.Errorf("the token server saw %v", seen)
	}
	if logins := shown(); len(logins) > 0 {
		t.Errorf("a registry without logins saw %v", logins)
	}
}

// watchedRegistry is a registry for everybody, and tells what it was shown in headers for authentication.
func watchedRegistry(t *testing.T) (string, func() []string) {
	t.Helper()
	u, err := url.Parse("http://" + lab.Registry(t))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if login := r.In.Header.Get("Authorization"); login != "" {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, login)
		}
		r.SetURL(u)
		r.Out.Host = r.In.Host
	}}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}
