package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// B8: which registries a name means.
func TestCandidates(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "registries.conf")
	sys := &types.SystemContext{SystemRegistriesConfPath: conf, SystemRegistriesConfDirPath: "/nonexistent", UserShortNameAliasConfPath: filepath.Join(t.TempDir(), "aliases")}
	local := &store.Image{Names: []string{"localhost/app:1"}}
	known := &store.Image{Names: []string{"localhost/x:1", "quay.example/team/app:1"}}
	const one, two = `unqualified-search-registries = ["docker.io"]`, `unqualified-search-registries = ["a.example", "docker.io"]`
	const enforcing, alias = "\nshort-name-mode = \"enforcing\"", "\n[aliases]\n\"app\" = \"b.example/team/app\""
	for _, c := range []struct {
		conf, name string
		have       *store.Image
		want       []string
		class      kimg.Class
	}{
		{"", "registry.example/app", nil, []string{"registry.example/app:latest"}, ""},
		{"", "127.0.0.1:5000/app:1", nil, []string{"127.0.0.1:5000/app:1"}, ""},
		{"", "docker.io/app", nil, []string{"docker.io/library/app:latest"}, ""},
		{"", "localhost/app:1", nil, nil, ""},
		{"", "sha256:00", nil, nil, ""},
		{"", "Not A Name", nil, nil, ""},
		{"", "app:1", nil, nil, kimg.ErrNotFound},
		{"", "app:1", local, nil, ""},
		{"", "app:1", known, []string{"quay.example/team/app:1"}, ""},
		{one + enforcing, "app", nil, []string{"docker.io/library/app:latest"}, ""},
		{two, "app:1", nil, []string{"a.example/app:1", "docker.io/library/app:1"}, ""},
		{two + enforcing, "app:1", nil, nil, kimg.ErrInvalid},
		{two + enforcing + alias, "app:1", nil, []string{"b.example/team/app:1"}, ""},
		{two + enforcing + alias, "app", nil, []string{"b.example/team/app:latest"}, ""},
		{"broken = ", "app", nil, nil, kimg.ErrInvalid},
	} {
		if err := os.WriteFile(conf, []byte(c.conf), 0o600); err != nil {
			t.Fatal(err)
		}
		again := *sys // what was read is remembered by path
		again.SystemRegistriesConfPath = filepath.Join(t.TempDir(), "registries.conf")
		if err := os.Link(conf, again.SystemRegistriesConfPath); err != nil {
			t.Fatal(err)
		}
		got, err := candidates(&again, c.name, c.have)
		if !slices.Equal(got, c.want) || kimg.ClassOf(err) != c.class {
			t.Errorf("%q with %q: %v, %v", c.name, c.conf, got, err)
		}
		_ = os.Remove(conf)
	}
}

// A digest says more than the tag beside it.
func TestUntagged(t *testing.T) {
	at := "@sha256:" + strings.Repeat("1", 64)
	for name, want := range map[string]string{
		"app:1" + at: "app" + at, "a.example:5000/x/app:1" + at: "a.example:5000/x/app" + at, "a.example/app" + at: "a.example/app" + at,
		"app:1": "app:1", "app": "app", "Not A Name" + at: "Not A Name" + at, "sha256:1": "sha256:1", strings.Repeat("1", 64): strings.Repeat("1", 64),
	} {
		if got := untagged(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
