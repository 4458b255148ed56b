package registry_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/tests/faults"
)

// What a blob cannot be read for is no failure of the registry: it is what is returned, and nothing is sent again.
func TestPutTellsWhoFailed(t *testing.T) {
	to := create(t, &faults.Registry{}, impatient(time.Minute))
	defer to.Close()
	to.Retries = 3
	data := digest.FromString("data")
	for _, c := range []struct {
		reads  error
		digest digest.Digest
		size   int64
		want   kimg.Class
	}{{io.ErrUnexpectedEOF, "", -1, kimg.ErrInternal}, {kimg.Errorf(kimg.ErrBusy, "", "changed"), data, 8, kimg.ErrBusy}, {nil, data, 3, kimg.ErrIntegrity}, {nil, data, 5, kimg.ErrIntegrity}} {
		tries := 0
		err := to.Resend(t.Context(), func() error {
			tries++
			r := io.Reader(strings.NewReader("data"))
			if c.reads != nil {
				r = io.MultiReader(r, iotest.ErrReader(c.reads))
			}
			_, _, err := to.Put(t.Context(), c.digest, c.size, r)
			return err
		})
		if kimg.ClassOf(err) != c.want || c.reads != nil && !errors.Is(err, c.reads) || strings.Contains(err.Error(), "http") || tries != 1 {
			t.Errorf("%v: %s after %d tries: %v", c.reads, kimg.ClassOf(err), tries, err)
		}
	}
}

// create begins to speak to a registry.
func create(t *testing.T, h http.Handler, p registry.Patience) *registry.Destination {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	ref, err := docker.ParseReference("//" + strings.TrimPrefix(server.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	sys := &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue, SystemRegistriesConfPath: "/dev/null", RegistriesDirPath: "/nonexistent", AuthFilePath: t.TempDir() + "/auth.json"}
	to, err := registry.Create(t.Context(), ref, sys, p, none.NoCache)
	if err != nil {
		t.Fatal(err)
	}
	return to
}
