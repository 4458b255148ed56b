//go:build interop

package interop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// counted is a registry seen through a proxy that counts the bytes of blobs on their way to it and from it.
type counted struct {
	addr     string
	up, down atomic.Int64
}

func countBlobs(t *testing.T, registry string) *counted {
	t.Helper()
	c := &counted{}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: registry})
			r.Out.Host = r.In.Host // uploads go on through here
			if r.Out.Body != nil && strings.Contains(r.In.URL.Path, "/blobs/") {
				r.Out.Body = countedBody{r.Out.Body, &c.up}
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if strings.Contains(r.Request.URL.Path, "/blobs/") {
				r.Body = countedBody{r.Body, &c.down}
			}
			return nil
		},
	})
	t.Cleanup(server.Close)
	c.addr = server.Listener.Addr().String()
	return c
}

// take returns what was counted since it was taken last.
func (c *counted) take() (up, down int64) { return c.up.Swap(0), c.down.Swap(0) }

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
