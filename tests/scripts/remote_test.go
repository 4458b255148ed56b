package scripts

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kimg/kimg/tests/faults"
)

// front is a registry in memory behind TLS and a login, which may be out of order for some requests.
type front struct {
	faults.Registry
	failures atomic.Int32
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	switch {
	case user+":"+password != "me:secret":
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	case f.failures.Add(-1) >= 0:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == "DELETE":
		w.WriteHeader(http.StatusAccepted)
	case strings.HasSuffix(r.URL.Path, "/tags/list"):
		fmt.Fprint(w, `{"name":"app","tags":["one","two"]}`)
	default:
		f.Registry.ServeHTTP(w, r)
	}
}

// TestRegistryFlags: every command that speaks to a registry takes logins, certificates and the number of retries.
func TestRegistryFlags(t *testing.T) {
	l := newLab(t)
	registry := &front{}
	server := httptest.NewTLSServer(registry)
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, data := range map[string]string{
		"tree/file": "x", "certs/ca.crt": string(ca), "auth.json": fmt.Sprintf(`{"auths":{%q:{"auth":"bWU6c2VjcmV0"}}}`, host),
		"policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
	} {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(l.work, name)), 0o755))
		check(t, os.WriteFile(filepath.Join(l.work, name), []byte(data), 0o644))
	}
	for _, line := range []string{"import tree base:1", "manifest create list:1 base:1", "manifest create list:2", "from --name c1 base:1"} {
		l.must(t, strings.Fields(line)...)
	}
	fill := func(line, flags string) string {
		return "--signature-policy policy.json " + strings.NewReplacer("{F}", flags, "{R}", "docker://"+host).Replace(line)
	}
	for _, line := range []string{
		"push {F} --additional-tag 2 base:1 {R}/app:1", "copy {F} {R}/app:2 {R}/app:3", "convert {F} {R}/app:3 {R}/app:4", "pull {F} {R}/app:1",
		"list-tags {F} {R}/app", "inspect {F} {R}/app:1", "manifest create {F} --amend made:1 {R}/app:1", "manifest add {F} list:2 {R}/app:1",
		"manifest inspect {F} {R}/app:1", "manifest push {F} list:1 {R}/app:list", "from --pull always {F} {R}/app:1", "commit {F} c1 {R}/app:5",
		"validate {F} {R}/app:1", "export {F} -o out.tar {R}/app:1", "delete {F} {R}/app:1",
	} {
		l.expect(t, fill(line, ""), 1, "tls")
		l.expect(t, fill(line, "--tls-verify=false --creds me:wrong"), 1, "auth")
		l.must(t, strings.Fields(fill(line, "--cert-dir certs --creds me:secret"))...)
		l.must(t, strings.Fields(fill(line, "--tls-verify=false --authfile auth.json"))...)
		registry.failures.Store(1)
		l.expect(t, fill(line, "--retry 0 --cert-dir certs --creds me:secret"), 1, "network")
	}
	registry.failures.Store(1)
	if out := l.must(t, strings.Fields(fill("list-tags --retry 1 --cert-dir certs --creds me:secret {R}/app", ""))...); out != "one\ntwo" {
		t.Errorf("tags %q", out)
	}
	for _, flags := range []string{
		"--src-creds me:secret --src-cert-dir certs --dest-authfile auth.json --dest-tls-verify=false",
		"--dest-creds me:secret --dest-cert-dir certs --src-authfile auth.json --src-tls-verify=false",
		"--creds me:wrong --src-creds me:secret --dest-creds me:secret --tls-verify=false", // those for one side win
	} {
		l.must(t, strings.Fields(fill("copy {F} {R}/app:2 {R}/other:1", flags))...)
	}
	l.expect(t, fill("copy {F} {R}/app:2 {R}/third:1", "--src-creds me:secret --tls-verify=false"), 1, "auth")
	for _, tag := range []string{"1", "2", "3", "4", "5", "list"} {
		if registry.Manifest("app", tag) == nil {
			t.Errorf("app:%s is not there", tag)
		}
	}
}
