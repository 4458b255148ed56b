package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/asroot"
	"github.com/kimg/kimg/tests/lab"
)

// What any scenario leaves open, running or in the temporary directory is a failure.
func TestMain(m *testing.M) { os.Exit(asroot.Run(atHome{m})) }

// atHome runs the tests in an empty home. It is the same for all of them, because the libraries ask for it once.
type atHome struct{ *testing.M }

func (a atHome) Run() int {
	dir, err := os.MkdirTemp("", "")
	for name, path := range map[string]string{"HOME": dir + "/home", "XDG_RUNTIME_DIR": dir, "XDG_CONFIG_HOME": dir + "/config", "DOCKER_CONFIG": ""} {
		err = errors.Join(err, os.Setenv(name, path))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return a.M.Run()
}

// P12: whatever a registry is asked for when a copy is interrupted, it ends at once and leaves nothing.
func TestCancelPhases(t *testing.T) {
	dir := t.TempDir()
	if err := sample.WriteOCI(dir+"/src", "a"); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ping", "token", "manifest", "blob", "head", "post", "patch", "put", "publish"} {
		t.Run(kind, func(t *testing.T) {
			testenv.Soon(t, "it ended", 500*time.Millisecond, func() time.Duration {
				ctx, cancel := context.WithCancel(t.Context())
				var at time.Time
				var once sync.Once
				fault := &Fault{Kind: kind, Do: func(w http.ResponseWriter, r *http.Request, data []byte) {
					once.Do(func() { at = time.Now(); cancel() })
					Silence(w, r, data)
				}}
				s, tags := full(), 1
				if pushed := slices.Contains([]string{"head", "post", "patch", "put", "publish"}, kind); pushed {
					s, tags = &Registry{}, 0
				}
				s.Fault, s.User, s.Token = fault, "me:secret", true
				src, dst := "docker://"+serve(t, s)+"/app:1", "dir:"+dir+"/dst"
				if tags == 0 {
					src, dst = "oci:"+dir+"/src:a", src
				}
				sys := system(t)
				sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
				c := image.New(image.Options{Sys: sys, Keep: true, NoSync: true})
				defer c.Close()
				from, _ := image.Parse(src)
				to, _ := image.Parse(dst)
				_, err := c.Convert(ctx, from, to)
				took := time.Since(at)
				ends(t, err, kimg.ErrInterrupted)
				if names, err := os.ReadDir(dir); err != nil || len(names) != 1 || len(s.Names()) != tags {
					t.Errorf("%v and %v are left, %v", names, s.Names(), err)
				}
				return took
			})
		})
	}
}

// A certificate that is over, or is for another host, is class tls; nobody asks such a server for anything, nor shows it a login.
func TestCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		life time.Duration
		host string
		want kimg.Class
	}{"good": {time.Hour, "127.0.0.1", ""}, "over": {-time.Minute, "127.0.0.1", kimg.ErrTLS}, "of another host": {time.Hour, "localhost", kimg.ErrTLS}} {
		t.Run(name, func(t *testing.T) {
			ca, s := lab.NewAuthority(t, c.life), full()
			server := httptest.NewUnstartedServer(s)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.TLS}}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			sys := system(t)
			sys.DockerInsecureSkipTLSVerify, sys.DockerCertPath = types.OptionalBoolFalse, ca.Dir
			sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
			_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
			_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+c.host+":"+port+"/app:1", "dir:"+t.TempDir()+"/x")
			server.CloseClientConnections()
			ends(t, err, c.want)
			if asked := s.Asked(); c.want != "" && len(asked) > 0 {
				t.Errorf("%+v", asked)
			}
		})
	}
}

// dropping is a listener that does not keep its first connections.
type dropping struct {
	net.Listener
	first int
}

func (d *dropping) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	for ; err == nil && d.first > 0; d.first-- {
		_ = conn.Close()
		conn, err = d.Listener.Accept()
	}
	return conn, err
}

// A registry that does not keep the first connection is asked again, and not left for speaking TLS.
func TestDropped(t *testing.T) {
	for _, start := range []func(*httptest.Server){(*httptest.Server).Start, (*httptest.Server).StartTLS} {
		server := httptest.NewUnstartedServer(full())
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.Listener = &dropping{server.Listener, 1}
		start(server)
		_, host, _ := strings.Cut(server.URL, "//")
		_, err := copyImage(t, image.Options{}, "docker://"+host+"/app:1", "dir:"+t.TempDir()+"/x")
		server.CloseClientConnections()
		server.Close()
		ends(t, err, "")
	}
}

// A registry that sends a blob in circles ends with one line.
func TestRedirectsInCircles(t *testing.T) {
	s := full()
	host := serve(t, s)
	s.Elsewhere = "http://" + host
	_, err := copyImage(t, image.Options{}, "docker://"+host+"/app:1", "dir:"+t.TempDir()+"/x")
	ends(t, err, kimg.ErrNetwork)
}
