package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/testenv"
)

// B9: logins go where they belong: basic, by token, from a file, wrong ones.
func TestLogins(t *testing.T) {
	for _, token := range []bool{false, true} {
		s := full()
		s.User, s.Token = "me:secret", token
		host := serve(t, s)
		sys := system(t)
		for n, c := range []struct {
			login func()
			want  kimg.Class
		}{
			{func() {}, kimg.ErrAuth},
			{func() { sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "wrong"} }, kimg.ErrAuth},
			{func() { sys.DockerAuthConfig.Password = "secret" }, ""},
			{func() {
				sys.DockerAuthConfig = nil
				text := fmt.Sprintf(`{"auths":{"other.example":{"auth":"eDp5"},%q:{"auth":"bWU6c2VjcmV0"}}}`, host)
				if err := os.WriteFile(sys.AuthFilePath, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}, ""},
		} {
			c.login()
			_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+host+"/app:1", fmt.Sprintf("dir:%s/%d", t.TempDir(), n))
			ends(t, err, c.want)
			if err != nil && strings.Contains(err.Error(), "wrong") {
				t.Errorf("the password is in %v", err)
			}
		}
	}
}

// What goes wrong where tokens are given ends well, or is one clear line in which there is no token.
func TestTokenFaults(t *testing.T) {
	for _, c := range []scenario{
		{"status 503 once", Fault{Times: 1, Do: Status(503, "")}, ""},
		{"status 503 for ever", Fault{Do: Status(503, "")}, kimg.ErrNetwork},
		{"status 429 once", Fault{Times: 1, Do: Status(429, "TOOMANYREQUESTS")}, ""},
		{"status 429 for ever", Fault{Do: Status(429, "TOOMANYREQUESTS")}, kimg.ErrRateLimit},
		{"status 403", Fault{Do: Status(403, "DENIED")}, kimg.ErrAuth},
		{"status 404", Fault{Do: Status(404, "")}, kimg.ErrAuth},
		{"reset once", Fault{Times: 1, Do: Reset}, ""},
		{"cut once", Fault{Times: 1, Do: Cut}, ""},
		{"silent once", Fault{Times: 1, Do: Silence}, ""},
		{"a page of a proxy", Fault{Do: Other(func([]byte) []byte { return []byte("<html>") })}, kimg.ErrAuth},
		{"half a token", Fault{Do: Other(func([]byte) []byte { return []byte(`{"token":"topsecret`) })}, kimg.ErrAuth},
		{"no token", Fault{Do: Other(func([]byte) []byte { return []byte("{}") })}, kimg.ErrAuth},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, pushed := range []bool{false, true} {
				from, to, fault := full(), &Registry{}, c.fault
				s := from
				if pushed {
					s = to
				}
				fault.Kind = "token"
				s.User, s.Token, s.Fault = "me:secret", true, &fault
				o := c.options()
				o.Sys = system(t)
				o.Sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
				_, err := copyImage(t, o, "docker://"+serve(t, from)+"/app:1", "docker://"+serve(t, to)+"/app:1")
				ends(t, err, c.want)
				if err != nil && strings.Contains(err.Error(), "secret") || len(to.Names()) > 0 != (err == nil) {
					t.Errorf("%v, and %v", err, to.Names())
				}
			}
		})
	}
}

// A token that is taken back in the middle is asked for anew, on both sides; a refusal for ever ends soon.
func TestTokensEnd(t *testing.T) {
	from, to := full(), &Registry{}
	for _, s := range []*Registry{from, to} {
		s.User, s.Token, s.Uses = "me:secret", true, 5
	}
	from.Uses = 2
	sys := system(t)
	sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "me", Password: "secret"}
	src := "docker://" + serve(t, from) + "/app:1"
	if _, err := copyImage(t, image.Options{Sys: sys, AdditionalTags: []string{"2", "3"}}, src, "docker://"+serve(t, to)+"/app:1"); err != nil {
		t.Fatal(err)
	}
	if len(to.Names()) != 3 || len(from.tokens) < 3 || len(to.tokens) < 3 {
		t.Errorf("%v, %d and %d tokens", to.Names(), len(from.tokens), len(to.tokens))
	}
	from.Asked()
	from.Fault = &Fault{Kind: "blob", Do: Status(401, "UNAUTHORIZED")}
	_, err := copyImage(t, image.Options{Sys: sys}, src, "dir:"+t.TempDir()+"/x")
	ends(t, err, kimg.ErrAuth)
	if n := len(from.Asked()); n > 20 {
		t.Errorf("%d requests", n)
	}
}

// B9: credential helpers are asked, and no other program; one that is not there, fails or hangs is one clear line.
func TestCredentialHelpers(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	s := full()
	s.User = "me:secret"
	host := serve(t, s)
	for _, c := range []struct {
		name, auth, script string
		want               kimg.Class
	}{
		{"for the host", `{"credHelpers":{%q:"kimgtest"}}`, `read host; [ "$1 $host" = "get ` + host + `" ] && echo '{"Username":"me","Secret":"secret"}'`, ""},
		{"of registries.conf", `{"auths":{"other.example":{},%q:{}}}`, `echo '{"Username":"me","Secret":"secret"}'`, ""},
		{"for others", `{"credHelpers":{"other.example":"kimgtest"},"auths":{%q:{"auth":"bWU6c2VjcmV0"}}}`, `echo asked >` + bin + `/asked`, ""},
		{"knows nothing", `{"credHelpers":{%q:"kimgtest"}}`, `echo "credentials not found in native keychain"; exit 1`, kimg.ErrAuth},
		{"fails", `{"credHelpers":{%q:"kimgtest"}}`, `echo "the vault is closed"; exit 1`, kimg.ErrAuth},
		{"nonsense", `{"credHelpers":{%q:"kimgtest"}}`, `echo "<html>"`, kimg.ErrAuth},
		{"is not there", `{"credHelpers":{%q:"kimgtest"}}`, "", kimg.ErrAuth},
		{"hangs", `{"credHelpers":{%q:"kimgtest"}}`, `while [ -e "$0" ]; do sleep .05; done`, kimg.ErrNetwork},
	} {
		t.Run(c.name, func(t *testing.T) {
			sys, helper := system(t), filepath.Join(bin, "docker-credential-kimgtest")
			_ = os.Remove(helper)
			if c.name == "of registries.conf" {
				sys.SystemRegistriesConfPath = filepath.Join(t.TempDir(), "registries.conf")
				if err := os.WriteFile(sys.SystemRegistriesConfPath, []byte(`credential-helpers = ["kimgtest"]`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := os.WriteFile(sys.AuthFilePath, fmt.Appendf(nil, c.auth, host), 0o600)
			if c.script != "" {
				err = errors.Join(err, os.WriteFile(helper, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755))
			}
			if err != nil {
				t.Fatal(err)
			}
			o := image.Options{Sys: sys, Retries: -1}
			if c.name == "hangs" {
				o.IdleTimeout = 300 * time.Millisecond
			}
			_, err = copyImage(t, o, "docker://"+host+"/app:1", "dir:"+t.TempDir()+"/x")
			ends(t, err, c.want)
			if err != nil && c.name == "fails" && !strings.Contains(err.Error(), "the vault is closed") || err != nil && c.name == "is not there" && !strings.Contains(err.Error(), "docker-credential-kimgtest") {
				t.Error(err)
			}
			if c.name == "hangs" {
				c := image.New(image.Options{Sys: sys})
				defer c.Close()
				ref, _ := image.Parse("docker://" + host + "/app:1")
				testenv.Soon(t, "it ended", 500*time.Millisecond, func() time.Duration {
					ctx, stop := context.WithCancel(t.Context())
					var at time.Time
					time.AfterFunc(50*time.Millisecond, func() { at = time.Now(); stop() })
					_, err := c.Tags(ctx, ref)
					took := time.Since(at)
					ends(t, err, kimg.ErrInterrupted)
					return took
				})
			}
		})
	}
	_ = os.Remove(filepath.Join(bin, "docker-credential-kimgtest")) // ends the one that hangs
	if _, err := os.Stat(filepath.Join(bin, "asked")); err == nil {
		t.Error("a helper was asked that is for another host")
	}
}
