package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
)

// B9: the files with logins are those of podman, in its order: the first that knows the registry counts. What Docker's names as its
// credsStore is not asked, but what registries.conf names is.
func TestAuthFiles(t *testing.T) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	t.Cleanup(func() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				t.Error(err)
			}
		}
	})
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := full()
	s.User = "me:secret"
	host := serve(t, s)
	write(t, dir+"/docker-credential-store", []byte("#!/bin/sh\ntouch "+dir+"/asked\necho '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n"))
	if err := os.Chmod(dir+"/docker-credential-store", 0o700); err != nil {
		t.Fatal(err)
	}
	sys := system(t)
	given := sys.AuthFilePath
	sys.AuthFilePath = ""
	login := func(auth string) string { return fmt.Sprintf(`{%q:{"auth":%q}}`, host, auth) }
	try := func(want kimg.Class) {
		t.Helper()
		_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+host+"/app:1", "dir:"+t.TempDir()+"/x")
		ends(t, err, want)
	}
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte(text))
	}
	put(dir+"/home/.docker/config.json", fmt.Sprintf(`{"auths":{%q:{}},"credsStore":"store"}`, host))
	try(kimg.ErrAuth)
	if _, err := os.Stat(dir + "/asked"); err == nil {
		t.Error("the credsStore was asked")
	}
	for _, path := range []string{dir + "/home/.dockercfg", dir + "/home/.docker/config.json", dir + "/config/containers/auth.json", dir + "/containers/auth.json", given} {
		form := `{"auths":%s}`
		if filepath.Base(path) == ".dockercfg" {
			form = `%s`
		}
		if path == given {
			sys.AuthFilePath = given
		}
		put(path, fmt.Sprintf(form, login("bWU6c2VjcmV0")))
		try("")
		put(path, fmt.Sprintf(form, login("bWU6d3Jvbmc="))) // is in the way of all that come after it
		try(kimg.ErrAuth)
	}
	put(given, `{}`) // the only one that is read
	try(kimg.ErrAuth)
	sys.SystemRegistriesConfPath = dir + "/registries.conf"
	put(sys.SystemRegistriesConfPath, `credential-helpers = ["containers-auth.json", "store"]`)
	try("")
}
