package commit_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// registry takes blobs, and manifests when it may.
type registry struct {
	mu        sync.Mutex
	manifests bool // are taken
	breaks    bool // the connection, while a blob is sent
	blobs     map[digest.Digest][]byte
	uploads   map[string][]byte
	puts      int // of manifests
}

func newRegistry(t *testing.T) (*registry, string) {
	r := &registry{blobs: map[digest.Digest][]byte{}, uploads: map[string][]byte{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, strings.TrimPrefix(server.URL, "http://")
}

func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if r.breaks && q.Method == http.MethodPatch {
		_, _ = io.CopyN(io.Discard, q.Body, 1000)
		panic(http.ErrAbortHandler)
	}
	body, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	path := q.URL.Path
	switch _, id, _ := strings.Cut(path, "/uploads/"); {
	case path == "/v2/":
	case q.Method == http.MethodPost:
		w.Header().Set("Location", fmt.Sprintf("%s%d", path, len(r.uploads)))
		r.uploads[fmt.Sprint(len(r.uploads))] = nil
		w.WriteHeader(http.StatusAccepted)
	case q.Method == http.MethodPatch:
		r.uploads[id] = append(r.uploads[id], body...)
		w.Header().Set("Location", path)
		w.WriteHeader(http.StatusAccepted)
	case strings.Contains(path, "/manifests/") && q.Method == http.MethodPut && r.manifests:
		r.puts++
		w.WriteHeader(http.StatusCreated)
	case strings.Contains(path, "/manifests/") && q.Method == http.MethodPut:
		w.WriteHeader(http.StatusInternalServerError)
	case q.Method == http.MethodPut:
		r.blobs[digest.Digest(q.URL.Query().Get("digest"))] = r.uploads[id]
		w.WriteHeader(http.StatusCreated)
	case q.Method == http.MethodHead && r.blobs[digest.Digest(filepath.Base(path))] != nil:
		w.Header().Set("Content-Length", fmt.Sprint(len(r.blobs[digest.Digest(filepath.Base(path))])))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
