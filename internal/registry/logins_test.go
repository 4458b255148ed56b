package registry

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kimg/kimg"
)

// wire is a host that notes every byte that comes to it, and answers each request with 200. It ends with stop.
func wire(t *testing.T) (addr string, stop func() string) {
	t.Helper()
	var came bytes.Buffer
	ended := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for b := make([]byte, 64<<10); ; {
				n, err := conn.Read(b)
				came.Write(b[:n])
				if err != nil {
					break
				}
				if bytes.HasSuffix(came.Bytes(), []byte("\r\n\r\n")) {
					_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
					break
				}
			}
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "localhost:" + port, func() string {
		_ = l.Close()
		<-ended
		return came.String()
	}
}

// P8: not one byte of a login is sent elsewhere, however long it or the address is; what has no login is sent.
func TestNoByteOfLogin(t *testing.T) {
	registry := httptest.NewServer(http.NotFoundHandler())
	defer registry.Close()
	for _, c := range []struct {
		path, login int
		want        kimg.Class
	}{{10, 0, ""}, {3000, 0, ""}, {6000, 0, ""}, {4050, 0, kimg.ErrAuth}, {10, 500, kimg.ErrAuth}, {10, 6000, kimg.ErrAuth}, {10, 60000, kimg.ErrAuth}, {3900, 500, kimg.ErrAuth}, {3000, 2000, kimg.ErrAuth}, {9000, 6000, kimg.ErrAuth}} {
		for _, before := range []bool{true, false} { // whether the registry saw a login
			t.Run(fmt.Sprint(c.path, c.login, before), func(t *testing.T) {
				elsewhere, stop := wire(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				ctx = keepLogins(ctx, []string{registry.Listener.Addr().String()}, cancel)
				tr := &http.Transport{}
				client := &http.Client{Transport: tr}
				get := func(url, login string) error {
					q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
					if err != nil {
						t.Fatal(err)
					}
					q.Header.Set("Accept", "a/b")
					if login != "" {
						q.Header.Set("Authorization", "Bearer "+login)
					}
					a, err := client.Do(q)
					if err == nil {
						err = a.Body.Close()
					}
					return err
				}
				if before {
					if err := get(registry.URL, "small"); err != nil {
						t.Fatal(err)
					}
				}
				err := get("http://"+elsewhere+"/"+strings.Repeat("a", c.path), strings.Repeat("S", c.login))
				tr.CloseIdleConnections()
				came := stop()
				want := c.want
				if c.login == 0 && !before {
					want = ""
				}
				if got := kimg.ClassOf(context.Cause(ctx)); got != want || (err == nil) != (want == "") {
					t.Errorf("%v: %v, want %q", err, context.Cause(ctx), want)
				}
				if n := strings.Count(came, "S"); before && n > 0 {
					t.Errorf("%d bytes of the login came", n)
				}
				if want == "" && came == "" {
					t.Error("nothing came")
				}
			})
		}
	}
}
