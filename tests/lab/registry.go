package lab

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
)

// Registry runs Debian's registry on the loopback interface until the test ends and returns its host and port. settings are its own
// variables, as REGISTRY_AUTH=token.
func Registry(t testing.TB, settings ...string) string {
	t.Helper()
	testenv.Need(t, "docker-registry")
	addr, stop, err := ServeRegistry(TempDir(t), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return addr
}

// ServeRegistry runs Debian's registry on the loopback interface, its data below a directory that exists, and returns its
// host and port once it answers. stop ends it; the data stays.
func ServeRegistry(dir string, settings ...string) (addr string, stop func(), err error) {
	for range 5 { // somebody else may take the port before the registry does
		if addr, stop, err = serveRegistry(dir, settings); err == nil {
			return addr, stop, nil
		}
	}
	return "", nil, err
}

func serveRegistry(dir string, settings []string) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	conf := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q, headers: {X-Lab: [%q]}}\ncompatibility: {schema1: {enabled: true}}\n",
		filepath.Join(dir, "data"), addr, dir)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("docker-registry", "serve", conf)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), settings...)
	scheme := "http://"
	if slices.ContainsFunc(settings, func(s string) bool { return strings.HasPrefix(s, "REGISTRY_HTTP_TLS_") }) {
		scheme = "https://"
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	stop = func() { _ = cmd.Process.Kill(); <-gone }
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if r, err := client.Get(scheme + addr + "/v2/"); err == nil {
			_ = r.Body.Close()
			if r.Header.Get("X-Lab") == dir { // ours, not another one on the same port
				return addr, stop, nil
			}
		}
		select {
		case <-gone:
			return "", nil, errors.New("the registry ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
	stop()
	return "", nil, errors.New("the registry does not answer")
}
