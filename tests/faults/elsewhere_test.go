package faults

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
)

// P8: an upload that a registry wants to have sent to another host ends before that host sees the login, basic or token.
func TestUploadsElsewhere(t *testing.T) {
	dir := t.TempDir()
	if err := sample.WriteOCI(dir, "a"); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"post", "patch"} { // whose answers say where to go on
		for _, token := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, token %v", kind, token), func(t *testing.T) {
				other := &Registry{}
				_, port, _ := strings.Cut(serve(t, other), ":")
				s := &Registry{User: "me:secret", Token: token, Fault: &Fault{Kind: kind, Do: func(w http.ResponseWriter, _ *http.Request, _ []byte) {
					w.Header().Set("Location", "http://localhost:"+port+"/v2/app/blobs/uploads/1")
					w.WriteHeader(http.StatusAccepted)
				}}}
				sys := system(t)
				sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
				_, err := copyImage(t, image.Options{Sys: sys}, "oci:"+dir+":a", "docker://"+serve(t, s)+"/app:1")
				if ends(t, err, kimg.ErrAuth); !strings.Contains(err.Error(), "localhost:"+port) {
					t.Errorf("%v", err)
				}
				for _, q := range other.Asked() {
					if q.Authorization != "" {
						t.Errorf("the other host saw %+v", q)
					}
				}
			})
		}
	}
}

// P8: a registry with TLS that sends a blob to where there is none: no login is seen there. To its own host, which the library
// would show the login, the copy ends; to another one it goes on without.
func TestDowngrade(t *testing.T) {
	for host, want := range map[string]kimg.Class{"127.0.0.1": kimg.ErrAuth, "localhost": ""} {
		t.Run(host, func(t *testing.T) {
			open, secure := full(), full()
			_, port, _ := strings.Cut(serve(t, open), ":")
			secure.User, secure.Elsewhere = "me:secret", "http://"+host+":"+port
			server := httptest.NewTLSServer(secure)
			defer server.Close()
			sys := system(t)
			sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
			_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+strings.TrimPrefix(server.URL, "https://")+"/app:1", "dir:"+t.TempDir()+"/x")
			server.CloseClientConnections()
			ends(t, err, want)
			for _, q := range open.Asked() {
				if q.Authorization != "" {
					t.Errorf("without TLS: %+v", q)
				}
			}
		})
	}
}

// An address that a blob is sent to, and is a login itself, is not shown.
func TestSignedAddresses(t *testing.T) {
	s, other := full(), "http://"+serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Reset(w, r, nil) }))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, other+"/blob?signature=topsecret", http.StatusTemporaryRedirect)
			return
		}
		s.ServeHTTP(w, r)
	})
	_, err := copyImage(t, image.Options{}, "docker://"+serve(t, h)+"/app:1", "dir:"+t.TempDir()+"/x")
	if ends(t, err, kimg.ErrNetwork); strings.Contains(err.Error(), "topsecret") || !strings.Contains(err.Error(), other+"/blob") {
		t.Error(err)
	}
}

// A mirror gets its own login, and the registry its own, when the mirror does not have the image.
func TestLoginsOfMirrors(t *testing.T) {
	mirror, s := full(), full()
	mirror.Fault = &Fault{Kind: "manifest", Do: Status(404, "MANIFEST_UNKNOWN")}
	mirror.User, s.User = "me:secret", "me:secret"
	_, port, _ := strings.Cut(serve(t, mirror), ":")
	host := serve(t, s)
	sys := system(t)
	sys.SystemRegistriesConfPath = filepath.Join(t.TempDir(), "registries.conf")
	text := fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", host, "localhost:"+port)
	if err := os.WriteFile(sys.SystemRegistriesConfPath, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	text = fmt.Sprintf(`{"auths":{%q:{"auth":"bWU6c2VjcmV0"},%q:{"auth":"bWU6c2VjcmV0"}}}`, host, "localhost:"+port)
	if err := os.WriteFile(sys.AuthFilePath, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+host+"/app:1", "dir:"+t.TempDir()+"/x")
	if ends(t, err, ""); len(mirror.Asked()) == 0 {
		t.Error("the mirror was not asked")
	}
}
