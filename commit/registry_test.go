package commit_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/tests/faults"
)

// serve starts a registry and returns its host and port.
func serve(t *testing.T, r *faults.Registry) string {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return strings.TrimPrefix(s.URL, "http://")
}

// count counts the requests of some kind.
func count(asked []faults.Request, kind string) (n int) {
	for _, q := range asked {
		if q.Kind == kind {
			n++
		}
	}
	return n
}

// cut takes a part of what is sent and breaks the connection.
func cut(w http.ResponseWriter, q *http.Request, _ []byte) {
	_, _ = io.CopyN(io.Discard, q.Body, 1000)
	faults.Reset(w, q, nil)
}

// U17: a registry that fails for a while while a container is committed to it is asked again, blob by blob, and what is sent again is counted
// once. One that does not heal is one clear line, and nothing is named there or left here.
func TestCommitFaults(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "base", strings.Repeat("base ", 20000)) })
	base, _ := into(t, s, c, commit.Options{Names: []string{"base"}})
	c = container(t, s, base)
	edit(t, c, func(root string) { write(t, root, "new", strings.Repeat("new ", 30000)) })
	co := commit.CopyOptions{RetryPause: time.Millisecond, System: system(t)}
	co.System.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
	checker := image.New(image.Options{Sys: co.System})
	defer checker.Close()
	had := layers(t, s)
	bytes := map[layerdiff.Compression]int64{} // that were counted when all went well
	status := faults.Status
	for _, scene := range []struct {
		name  string
		fault faults.Fault
		want  kimg.Class
	}{
		{"nothing is remembered", faults.Fault{}, ""},
		{"well", faults.Fault{}, ""},
		{"ping 503 once", faults.Fault{Kind: "ping", Times: 1, Do: status(503, "")}, ""},
		{"head reset once", faults.Fault{Kind: "head", Times: 1, Do: faults.Reset}, ""},
		{"post 503 once", faults.Fault{Kind: "post", Times: 1, Do: status(503, "")}, ""},
		{"patch 503 twice", faults.Fault{Kind: "patch", Times: 2, Do: status(503, "")}, ""},
		{"patch cut once", faults.Fault{Kind: "patch", Times: 1, Do: cut}, ""},
		{"patch 429 once", faults.Fault{Kind: "patch", Times: 1, Do: status(429, "TOOMANYREQUESTS")}, ""},
		{"patch silent once", faults.Fault{Kind: "patch", Times: 1, Do: faults.Silence}, ""},
		{"put 502 once", faults.Fault{Kind: "put", Times: 1, Do: status(502, "")}, ""},
		{"config put reset", faults.Fault{Kind: "put", After: 2, Times: 1, Do: faults.Reset}, ""},
		{"publish 500 twice", faults.Fault{Kind: "publish", Times: 2, Do: status(500, "")}, ""},
		{"tokens end", faults.Fault{}, ""},
		{"patch cut for ever", faults.Fault{Kind: "patch", Do: cut}, kimg.ErrNetwork},
		{"patch 429 for ever", faults.Fault{Kind: "patch", Do: status(429, "TOOMANYREQUESTS")}, kimg.ErrRateLimit},
		{"post 403", faults.Fault{Kind: "post", Do: status(403, "DENIED")}, kimg.ErrAuth},
		{"publish 503 for ever", faults.Fault{Kind: "publish", Do: status(503, "")}, kimg.ErrNetwork},
		{"publish 401", faults.Fault{Kind: "publish", Do: status(401, "UNAUTHORIZED")}, kimg.ErrAuth},
	} {
		for _, co.Compression = range []layerdiff.Compression{layerdiff.Gzip, layerdiff.ZstdChunked} {
			if co.Compression == layerdiff.ZstdChunked && slices.Contains([]string{"ping", "head", "publish"}, scene.fault.Kind) {
				continue // that has nothing to do with layers
			}
			t.Run(scene.name+" "+string(co.Compression), func(t *testing.T) {
				r := &faults.Registry{User: "me:secret", Token: true, Fault: &scene.fault}
				if scene.name == "tokens end" {
					r.Uses = 7
				}
				co := co
				if strings.Contains(scene.name, "silent") { // and a machine that is busy may look so
					co.IdleTimeout, co.Retries = 300*time.Millisecond, 20
				}
				addr := serve(t, r)
				var sent int64
				going := map[string]int{}
				o := commit.Options{Created: &day, Progress: func(e commit.Event) {
					switch {
					case e.Layer != "" && e.Total >= 0 && e.Bytes > e.Total, e.Bytes < 0:
						t.Errorf("%+v", e)
					case e.Layer != "" && e.Bytes == 0 && e.End.IsZero() && going[e.Layer] == 0:
						going[e.Layer]++
					case e.Layer != "" && !e.End.IsZero():
						going[e.Layer]--
					case e.Layer == "" && e.Step == commit.StepLayers && !e.End.IsZero():
						sent = e.Bytes
					}
				}}
				made, err := commit.Copy(t.Context(), s, c.ID, references(t, "docker://"+addr+"/app:1"), o, co)
				if kimg.ClassOf(err) != scene.want || err != nil && (!strings.Contains(err.Error(), addr+"/app:1") || strings.Contains(kimg.Line(err), "\n")) {
					t.Fatalf("%s: %v", kimg.ClassOf(err), err)
				}
				for layer, n := range going {
					if n != 0 {
						t.Errorf("%s began and ended differently: %d", layer, n)
					}
				}
				if images, err := s.Images(t.Context()); err != nil || len(images) != 1 || layers(t, s) != had {
					t.Errorf("%v, %v, %d layers", images, err, layers(t, s))
				}
				asked := r.Asked()
				if err != nil {
					if len(r.Names()) > 0 || scene.want == kimg.ErrAuth && len(asked) > 30 {
						t.Errorf("%v are there after %d requests", r.Names(), len(asked))
					}
					return
				}
				if scene.name == "well" {
					bytes[co.Compression] = sent
				}
				if want, ok := bytes[co.Compression]; ok && sent != want {
					t.Errorf("%d bytes were counted and not %d", sent, want)
				}
				if !slices.Equal(r.Names(), []string{"app:1"}) || count(asked, "token") < 2 && r.Uses > 0 {
					t.Errorf("%v, %d tokens", r.Names(), count(asked, "token"))
				}
				r.Uses, r.Fault = 0, nil
				v, err := checker.Validate(t.Context(), references(t, "docker://"+addr+"/app:1")[0], false)
				if err != nil || !v.Valid() || v.Digest != made.ManifestDigest {
					t.Errorf("%+v, %v", v, err)
				}
			})
		}
	}
}
