//go:build interop

package interop

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/signature"
	imagestorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// counted is a registry behind a proxy that counts the bytes of blobs it sends.
func counted(t *testing.T, addr string) (proxy string, sent *atomic.Int64) {
	t.Helper()
	sent = new(atomic.Int64)
	back := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = countedResponse{w, sent}
		}
		back.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), sent
}

type countedResponse struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c countedResponse) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// TestChunkedPull: of a layer of a thousand files that kimg pushed as zstd:chunked, containers/image fetches little more than the
// one file that changed when the store has the layer as it was before, and has the whole tree.
func TestChunkedPull(t *testing.T) {
	testenv.Root(t)
	addr, dir := lab.Registry(t), lab.TempDir(t)
	proxy, sent := counted(t, addr)
	from, to := lab.NewStore(t, ""), lab.NewStore(t, dir)
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o644); err != nil {
		t.Fatal(err)
	}
	from.Env = append(from.Env, "CONTAINERS_REGISTRIES_CONF="+conf)
	from.Kimg("from", "--name", "c", "scratch")
	store, err := storage.GetStore(storage.StoreOptions{
		GraphRoot: to.Root, RunRoot: to.RunRoot, GraphDriverName: "overlay", PullOptions: map[string]string{"enable_partial_images": "true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	var whole int64 // what the first image took
	for _, change := range []string{"thousand", "thousandth"} {
		from.In("c", "change", "seed="+change, change)
		name := "localhost/" + change
		from.Kimg("commit", "--squash", "--compression", "zstd:chunked", "c", name, "docker://"+addr+"/"+change)
		src, err := docker.ParseReference("//" + proxy + "/" + change)
		if err != nil {
			t.Fatal(err)
		}
		dest, err := imagestorage.Transport.ParseStoreReference(store, name)
		if err != nil {
			t.Fatal(err)
		}
		sent.Store(0)
		sys := &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}
		if _, err := copy.Image(t.Context(), policy, dest, src, &copy.Options{SourceCtx: sys}); err != nil {
			t.Fatal(err)
		}
		if whole == 0 {
			whole = sent.Load()
		}
	}
	t.Logf("%d bytes, then %d", whole, sent.Load())
	if whole < 1000*16<<10 || sent.Load()*10 > whole*3 {
		t.Errorf("%d bytes were fetched for one file of a thousand, and %d for all", sent.Load(), whole)
	}
	// The library makes files in a directory after it has set the directory's time.
	tree := func(s *lab.Store) string {
		return regexp.MustCompile(`(?m)( dir .*) t\d+$`).ReplaceAllString(s.ImageTree("podman", "localhost/thousandth"), "$1")
	}
	same(t, "the image pulled in parts", tree(from), tree(to))
	if _, err := store.Shutdown(false); err != nil {
		t.Error(err)
	}
	to.CheckClean()
}
