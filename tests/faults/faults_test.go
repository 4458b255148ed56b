package faults

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/testimage"
)

// An image with two layers, the same for every scenario.
var sample = testimage.NewImage(61, testimage.ImageOptions{Layers: 2, Gzip: true})

// full returns a registry that has the sample as app:1.
func full() *Registry {
	s := &Registry{}
	s.PutManifest("app", "1", sample.Manifest, sample.ManifestType)
	s.PutBlob("app", sample.Config)
	for _, l := range sample.Layers {
		s.PutBlob("app", l.Blob)
	}
	return s
}

// serve starts a registry and returns its host and port. Connections that a test left open are broken.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return strings.TrimPrefix(s.URL, "http://")
}

// system is what the image library is told: nothing of this machine.
func system(t *testing.T) *types.SystemContext {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return &types.SystemContext{
		SignaturePolicyPath: policy, AuthFilePath: filepath.Join(t.TempDir(), "auth.json"), SystemRegistriesConfPath: "/dev/null",
		RegistriesDirPath: "/nonexistent", DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
	}
}

func copyImage(t *testing.T, o image.Options, src, dst string) (image.Result, error) {
	t.Helper()
	o.Keep, o.NoSync, o.Jobs, o.RetryPause = true, true, 1, time.Millisecond
	if o.Sys == nil {
		o.Sys = system(t)
	}
	from, err := image.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	to, err := image.Parse(dst)
	if err != nil {
		t.Fatal(err)
	}
	c := image.New(o)
	defer c.Close()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	return c.Convert(ctx, from, to)
}

// P4, B6: what goes wrong while an image is fetched ends well, or is one clear line, with nothing left.
func TestPullFaults(t *testing.T) {
	for _, c := range pulls {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := full()
			s.Fault = &c.fault
			dir := t.TempDir()
			r, err := copyImage(t, c.options(), "docker://"+serve(t, s)+"/app:1", "oci:"+dir+"/layout:a")
			ends(t, err, c.want)
			if c.want == "" {
				if r.NewDigest.String() != testimage.Digest(sample.Manifest) {
					t.Errorf("%+v", r)
				}
				return
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
				t.Errorf("%v is left, %v", names, err)
			}
		})
	}
}

// What a registry asks to wait for is not idle, however long it is: nothing is asked again.
func TestRetryAfter(t *testing.T) {
	var err error
	for idle := 300 * time.Millisecond; idle < 30*time.Second; idle *= 5 { // a busy machine needs longer for everything
		s := full()
		s.Fault = &Fault{Kind: "manifest", Times: 1, Do: func(w http.ResponseWriter, r *http.Request, data []byte) {
			w.Header().Set("Retry-After", fmt.Sprint(int(idle/time.Second)+1))
			Status(429, "TOOMANYREQUESTS")(w, r, data)
		}}
		if _, err = copyImage(t, image.Options{Retries: -1, IdleTimeout: idle}, "docker://"+serve(t, s)+"/app:1", "dir:"+t.TempDir()+"/x"); err == nil {
			return
		}
	}
	t.Error(err)
}

// ends checks how a scenario ended.
func ends(t *testing.T, err error, want kimg.Class) {
	t.Helper()
	switch line := kimg.Line(err); {
	case want == "" && err != nil:
		t.Fatalf("%s: %v", kimg.ClassOf(err), err)
	case want == "":
	case err == nil || kimg.ClassOf(err) != want:
		t.Fatalf("class %s and not %s: %v", kimg.ClassOf(err), want, err)
	case len(line) > 1024 || strings.ContainsAny(line, "\n\r\x1b"):
		t.Errorf("not one line: %q", line)
	}
}

// What goes wrong while an image is sent ends well, or is one clear line, and no tag appears.
func TestPushFaults(t *testing.T) {
	dir := t.TempDir()
	if err := sample.WriteOCI(dir, "a"); err != nil {
		t.Fatal(err)
	}
	for _, c := range pushes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &Registry{Fault: &c.fault}
			o := c.options()
			o.AdditionalTags = []string{"2"}
			_, err := copyImage(t, o, "oci:"+dir+":a", "docker://"+serve(t, s)+"/app:1")
			ends(t, err, c.want)
			for _, tag := range []string{"1", "2"} {
				if got := s.Manifest("app", tag); (got != nil) != (c.want == "") || got != nil && !bytes.Equal(got, sample.Manifest) {
					t.Errorf("app:%s is %.40q", tag, got)
				}
			}
		})
	}
}

// A second copy sends and reads no blob; a copy to another repository mounts them; where that cannot be, they are sent.
func TestNothingTwice(t *testing.T) {
	for _, noMount := range []bool{false, true} {
		s := full()
		s.NoMount = noMount
		host := serve(t, s)
		for n, to := range []string{"other", "other", "app"} {
			s.Asked()
			if _, err := copyImage(t, image.Options{PreserveDigests: true}, "docker://"+host+"/app:1", "docker://"+host+"/"+to+":2"); err != nil {
				t.Fatal(err)
			}
			kinds := map[string]int{}
			for _, q := range s.Asked() {
				if strings.Contains(q.Path, testimage.Digest(sample.Config)) && q.Kind == "blob" {
					continue // the configuration is looked at
				}
				kinds[q.Kind]++
			}
			sent := n == 0 && noMount
			if (kinds["patch"] > 0) != sent || (kinds["blob"] > 0) != sent || n == 0 && !noMount && kinds["mount"] == 0 {
				t.Errorf("mounts refused: %v, copy %d: %v", noMount, n, kinds)
			}
		}
	}
}

// large puts an artifact with a blob into a registry that is more than fits into a connection.
func large(s *Registry) (blob []byte) {
	artifact(s, "chart")
	blob = bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	s.PutBlob("app", blob)
	said := func(b []byte) []byte { return fmt.Appendf(nil, `"digest":%q,"size":%d`, Digest(b), len(b)) }
	s.PutManifest("app", "1", bytes.Replace(s.Manifest("app", "1"), said(artifactBlobs[1]), said(blob), 1), sample.ManifestType)
	return blob
}

// A registry that mounts nothing is read and written at the same time.
func TestThroughOneRegistry(t *testing.T) {
	s := &Registry{NoMount: true}
	blob := large(s)
	host := "docker://" + serve(t, s)
	_, err := copyImage(t, image.Options{Retries: -1, IdleTimeout: 10 * time.Second}, host+"/app:1", host+"/other:1")
	ends(t, err, "")
	if !bytes.Equal(s.blobs["other@"+Digest(blob)], blob) {
		t.Error("another blob")
	}
}

// A registry that takes no more of a blob is idle, and is sent the blob again.
func TestTakesNoMore(t *testing.T) {
	from, over := &Registry{}, make(chan struct{})
	blob := large(from)
	src := "docker://" + serve(t, from) + "/app:1"
	var err error
	for idle := 300 * time.Millisecond; idle < 60*time.Second; idle *= 5 { // a busy machine needs longer for everything
		to := &Registry{Fault: &Fault{Kind: "patch", After: 1, Times: 1, Do: func(_ http.ResponseWriter, r *http.Request, _ []byte) {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			<-over
		}}}
		dst := "docker://" + serve(t, to) + "/app:1"
		if _, err = copyImage(t, image.Options{IdleTimeout: idle}, src, dst); err == nil {
			if !bytes.Equal(to.blobs["app@"+Digest(blob)], blob) {
				t.Error("another blob")
			}
			break
		}
	}
	close(over)
	ends(t, err, "")
}

// The signatures of a directory go where registries.d says, and those of a registry from there.
func TestSignatures(t *testing.T) {
	dir := t.TempDir()
	if err := sample.WriteDir(dir + "/src"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/src/signature-1", []byte("\x90signed"), 0o644); err != nil {
		t.Fatal(err)
	}
	sys := system(t)
	sys.RegistriesDirPath = dir + "/registries.d"
	if err := os.Mkdir(sys.RegistriesDirPath, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("default-docker:\n  lookaside: file://%s/sigs\n", dir)
	if err := os.WriteFile(sys.RegistriesDirPath+"/default.yaml", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	a, b := "docker://"+serve(t, &Registry{})+"/app:1", "docker://"+serve(t, &Registry{})+"/again:1"
	for _, pair := range [][2]string{{"dir:" + dir + "/src", a}, {a, b}} {
		if _, err := copyImage(t, image.Options{Sys: sys}, pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, repo := range []string{"app", "again"} {
		name := fmt.Sprintf("%s/sigs/%s@%s/signature-1", dir, repo, strings.Replace(testimage.Digest(sample.Manifest), ":", "=", 1))
		if data, err := os.ReadFile(name); err != nil || string(data) != "\x90signed" {
			t.Errorf("%s: %q, %v", repo, data, err)
		}
	}
}

// P8: where a registry sends blobs to never sees a login, whether it has them or not.
func TestRedirects(t *testing.T) {
	for _, token := range []bool{false, true} {
		for _, there := range []bool{true, false} {
			other := &Registry{}
			if there {
				other = full()
			}
			_, port, _ := strings.Cut(serve(t, other), ":")
			s := full()
			s.User, s.Token, s.Elsewhere = "me:secret", token, "http://localhost:"+port
			sys := system(t)
			sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
			_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+serve(t, s)+"/app:1", "dir:"+t.TempDir()+"/x")
			want := kimg.Class("")
			if !there {
				want = kimg.ErrNotFound
			}
			ends(t, err, want)
			asked := other.Asked()
			if len(asked) == 0 || slices.ContainsFunc(asked, func(q Request) bool { return q.Authorization != "" }) {
				t.Errorf("the other host saw %+v", asked)
			}
		}
	}
}

// B8: a mirror of registries.conf is asked first, and the registry when the mirror is in trouble.
func TestMirrors(t *testing.T) {
	for _, c := range []scenario{
		{name: "well"},
		{name: "status 404", fault: Fault{Kind: "manifest", Do: Status(404, "MANIFEST_UNKNOWN")}},
		{name: "status 403", fault: Fault{Kind: "manifest", Do: Status(403, "DENIED")}},
		{name: "status 503", fault: Fault{Kind: "ping", Do: Status(503, "")}},
		{name: "cut", fault: Fault{Kind: "manifest", Do: Cut}},
		{name: "silent at first", fault: Fault{Kind: "ping", Do: Silence}},
		{name: "silent later", fault: Fault{Kind: "manifest", Do: Silence}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mirror, s := full(), full()
			mirror.Fault = &c.fault
			host := serve(t, s)
			o := c.options()
			o.Sys = system(t)
			o.Sys.SystemRegistriesConfPath = filepath.Join(t.TempDir(), "registries.conf")
			text := fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", host, serve(t, mirror))
			if err := os.WriteFile(o.Sys.SystemRegistriesConfPath, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := copyImage(t, o, "docker://"+host+"/app:1", "dir:"+t.TempDir()+"/x"); err != nil {
				t.Fatal(err)
			}
			if fromMirror := len(s.Asked()) == 0; fromMirror != (c.name == "well") || len(mirror.Asked()) == 0 {
				t.Errorf("from the mirror: %v", fromMirror)
			}
		})
	}
}

// Every side has TLS of its own: an unknown certificate is class tls, and no login is sent to whoever has it.
func TestTLS(t *testing.T) {
	s := full()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	sys := system(t)
	sys.DockerInsecureSkipTLSVerify, sys.DockerAuthConfig = types.OptionalBoolFalse, &types.DockerAuthConfig{Username: "me", Password: "secret"}
	src := "docker://" + strings.TrimPrefix(server.URL, "https://") + "/app:1"
	_, err := copyImage(t, image.Options{Sys: sys}, src, "dir:"+t.TempDir()+"/x")
	ends(t, err, kimg.ErrTLS)
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("%+v", asked)
	}
	dst := &Registry{}
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	strict := *sys
	strict.DockerInsecureSkipTLSVerify = types.OptionalBoolFalse
	_, err = copyImage(t, image.Options{Sys: sys, DestinationSys: &strict}, src, "docker://"+serve(t, dst)+"/app:1")
	ends(t, err, kimg.ErrNetwork) // it does not speak TLS
	if _, err = copyImage(t, image.Options{Sys: sys}, src, "docker://"+serve(t, dst)+"/app:1"); err != nil {
		t.Error(err)
	}
}

// A policy that rejects refuses before a blob is asked for.
func TestPolicy(t *testing.T) {
	s := full()
	sys := system(t)
	if err := os.WriteFile(sys.SignaturePolicyPath, []byte(`{"default":[{"type":"reject"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+serve(t, s)+"/app:1", "dir:"+t.TempDir()+"/x")
	ends(t, err, kimg.ErrDenied)
	if slices.ContainsFunc(s.Asked(), func(q Request) bool { return q.Kind == "blob" }) {
		t.Error("a blob was asked for")
	}
}
