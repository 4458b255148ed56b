package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

// fakeRegistry serves one repository, "old". It answers with status instead, when that is set.
type fakeRegistry struct {
	manifest    []byte
	contentType string
	blobs       map[string][]byte
	status      int
	cut         bool // blobs end early

	mu    sync.Mutex
	asked []string
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.URL.Path)
	f.mu.Unlock()
	_, rest, _ := strings.Cut(r.URL.Path, "/v2/old/")
	switch {
	case r.URL.Path == "/v2/":
	case f.status != 0:
		http.Error(w, "no", f.status)
	case strings.HasPrefix(rest, "manifests/"):
		w.Header().Set("Content-Type", f.contentType)
		_, _ = w.Write(f.manifest)
	case f.blobs[strings.TrimPrefix(rest, "blobs/")] != nil:
		blob := f.blobs[strings.TrimPrefix(rest, "blobs/")]
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		if f.cut {
			blob = blob[:len(blob)/2]
		}
		_, _ = w.Write(blob)
	default:
		http.NotFound(w, r)
	}
}

// serve starts the registry and returns a reference to its image.
func (f *fakeRegistry) serve(t *testing.T) (string, *types.SystemContext) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	sys := policyFile(t, "insecureAcceptAnything")
	sys.DockerInsecureSkipTLSVerify, sys.AuthFilePath = types.OptionalBoolTrue, t.TempDir()+"/auth.json"
	sys.SystemRegistriesConfPath, sys.RegistriesDirPath = "/dev/null", "/nonexistent"
	return "docker://" + strings.TrimPrefix(s.URL, "http://") + "/old:1", sys
}

// A signed schema 1 image is read from a registry, whatever it says the manifest is. Throwaway blobs are not asked for.
func TestFromRegistry(t *testing.T) {
	img := testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 3, Empty: 2, Signed: true})
	for _, contentType := range []string{"application/vnd.docker.distribution.manifest.v1+prettyjws", "text/plain", "application/json", ""} {
		f := &fakeRegistry{manifest: img.Manifest, contentType: contentType, blobs: img.Blobs}
		src, sys := f.serve(t)
		c := converter(t, Options{Sys: sys})
		r := c.must(t, src, "oci:"+t.TempDir()+"/oci")
		if r.From != convert.DockerV2S1 || len(r.Layers) != 3 || string(r.OldDigest) != testimage.Digest(img.Payload) {
			t.Errorf("%q: %+v", contentType, r)
		}
		for _, e := range img.History {
			for _, path := range f.asked {
				if e.Empty && strings.HasSuffix(path, e.Blob) {
					t.Errorf("%s was read", path)
				}
			}
		}
		if v, err := c.Validate(context.Background(), ref(t, src), false); err != nil || !v.Valid() {
			t.Errorf("%+v, %v", v, err)
		}
		v1 := converter(t, Options{Sys: sys, Format: convert.DockerV2S1}).must(t, src, "dir:"+t.TempDir()+"/v1")
		if v1.To != convert.DockerV2S1 {
			t.Errorf("%+v", v1)
		}
	}
}

// What a registry does wrong has a class, and the destination stays as it was.
func TestRegistryFailures(t *testing.T) {
	dir := t.TempDir()
	img := testimage.NewImage(1, testimage.ImageOptions{Docker: true, Gzip: true})
	blobs := map[string][]byte{testimage.Digest(img.Config): img.Config}
	for _, l := range img.Layers {
		blobs[l.Digest] = l.Blob
	}
	before := files(t, dir)
	for name, c := range map[string]struct {
		f    *fakeRegistry
		want []kimg.Class
	}{
		"not found":    {&fakeRegistry{status: 404}, []kimg.Class{kimg.ErrNotFound}},
		"unauthorized": {&fakeRegistry{status: 401}, []kimg.Class{kimg.ErrAuth}},
		"forbidden":    {&fakeRegistry{status: 403}, []kimg.Class{kimg.ErrAuth}},
		"broken":       {&fakeRegistry{status: 400}, []kimg.Class{kimg.ErrNetwork}},
		"cut":          {&fakeRegistry{blobs: blobs, cut: true}, []kimg.Class{kimg.ErrNetwork, kimg.ErrIntegrity}},
		"no blobs":     {&fakeRegistry{}, []kimg.Class{kimg.ErrNotFound}},
	} {
		c.f.manifest, c.f.contentType = img.Manifest, img.ManifestType
		src, sys := c.f.serve(t)
		_, err := converter(t, Options{Sys: sys}).try(t, src, "dir:"+dir+"/x")
		ok := false
		for _, class := range c.want {
			ok = ok || errors.Is(err, class)
		}
		if !ok || len(kimg.Line(err)) > 1024 {
			t.Errorf("%s: class %s: %v", name, kimg.ClassOf(err), err)
		}
		same(t, name, before, files(t, dir))
	}
	sys := policyFile(t, "insecureAcceptAnything")
	if _, err := converter(t, Options{Sys: sys}).try(t, "docker://127.0.0.1:1/x", "dir:"+dir+"/x"); !errors.Is(err, kimg.ErrNetwork) {
		t.Errorf("nobody there: %s: %v", kimg.ClassOf(err), err)
	}
	tls := httptest.NewTLSServer(&fakeRegistry{})
	t.Cleanup(tls.Close)
	if _, err := converter(t, Options{Sys: sys}).try(t, "docker://"+strings.TrimPrefix(tls.URL, "https://")+"/x", "dir:"+dir+"/x"); !errors.Is(err, kimg.ErrTLS) {
		t.Errorf("an unknown certificate: %s: %v", kimg.ClassOf(err), err)
	}
	f := &fakeRegistry{manifest: img.Manifest, contentType: img.ManifestType, blobs: blobs}
	src, sys := f.serve(t)
	wrong := strings.TrimSuffix(src, ":1") + "@sha256:" + strings.Repeat("0", 64)
	if _, err := converter(t, Options{Sys: sys}).try(t, wrong, "dir:"+dir+"/x"); !errors.Is(err, kimg.ErrIntegrity) {
		t.Errorf("another manifest than asked for: %s: %v", kimg.ClassOf(err), err)
	}
	same(t, "the destination", before, files(t, dir))
}
