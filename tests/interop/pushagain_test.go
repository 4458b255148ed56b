//go:build interop

package interop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kimg/kimg/tests/lab"
)

// TestPushAgain: an image that goes to a registry a second time is neither read nor sent; of one that was changed only the new
// layer is. Counted are what the registry gets and what the process reads; the time is a row of make bench-compare.
func TestPushAgain(t *testing.T) {
	addr := lab.Registry(t)
	var got atomic.Int64
	back := httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: addr})
		r.Out.Host = r.In.Host // uploads go on through here
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/uploads/") {
			r.Body = countedBody{r.Body, &got}
		}
		back.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s := lab.NewStore(t, "")
	s.Kimg("from", "--name", "c", "scratch")
	s.In("c", "change", "tiny", "eighth") // 64 MiB
	s.Kimg("commit", "c", "localhost/first")
	s.Kimg("from", "--name", "d", "localhost/first")
	s.In("d", "change", "seed=other", "tiny")
	s.Kimg("commit", "d", "localhost/second")
	push := func(name string) (sent, read int64, r lab.Result) {
		t.Helper()
		got.Store(0)
		to := "docker://" + server.Listener.Addr().String() + "/app:" + name
		// A shell's own account has what the children have read that it has waited for.
		argv := append([]string{"sh", "-c", `"$@" && cat /proc/$$/io`, "sh"}, s.Args("push", "-q", "--tls-verify=false", "localhost/"+name, to)...)
		if r = lab.Run(t, s.Env, argv...); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		m := regexp.MustCompile(`rchar: (\d+)`).FindStringSubmatch(r.Stdout)
		if m == nil {
			t.Fatalf("no account:\n%s", r.Stdout)
		}
		read, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return got.Load(), read, r
	}
	const layer, little = 64 << 20, 4 << 20
	sent, read, first := push("first")
	if sent < layer || read < layer {
		t.Fatalf("the first push sent %d bytes and read %d: nothing is proven", sent, read)
	}
	againSent, againRead, again := push("first")
	newSent, newRead, changed := push("second")
	t.Logf("sent, read, took: %d %d %v, again %d %d %v, changed %d %d %v", sent, read, first.Took, againSent, againRead, again.Took, newSent, newRead, changed.Took)
	if againSent != 0 || againRead > little {
		t.Errorf("again: %d bytes were sent, %d read", againSent, againRead)
	}
	if newSent > little || newRead > little {
		t.Errorf("changed: %d bytes were sent, %d read", newSent, newRead)
	}
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
