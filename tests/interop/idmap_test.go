//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// idMap maps container ids from 0 on. A user has fewer ids to give away than root.
func idMap() []string {
	m := "0:100000:65536"
	if !testenv.IsRoot() {
		m = "0:1000:60000"
	}
	return []string{"--uidmap", m, "--gidmap", m}
}

// TestMappedContainer writes to a container with an id map in the two ways kimg offers; the image must hold container
// ids everywhere: owners, access control lists, capabilities.
func TestMappedContainer(t *testing.T) {
	// The same changes in a container without a map say what is right.
	base, src := lab.SmallBase(t), addSource(t)
	fill := func(s *lab.Store, mapping ...string) string {
		s.Kimg("import", base, "localhost/base")
		s.Kimg(append(append([]string{"from", "--name", "c"}, mapping...), "localhost/base")...)
		s.Kimg("add", "--chown", "33:44", "c", src, "/srv/added")
		s.In("c", "change", "mapped")
		return s.In("c", "snapshot")
	}
	want := fill(lab.NewStore(t, ""))
	for _, gone := range []string{"etc/issue", "usr/share/doc/bash"} {
		if strings.Contains(want, fmt.Sprintf("%q ", gone)) {
			t.Fatalf("%s was deleted and is there", gone)
		}
	}
	for name, env := range map[string][]string{
		"idmapped mounts":    nil,
		"no idmapped mounts": {"_CONTAINERS_OVERLAY_DISABLE_IDMAP=yes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := lab.NewStore(t, "")
			s.Env = env
			shown, mounted := want, fill(s, idMap()...)
			if env != nil || !testenv.IsRoot() { // no idmapped mounts: the library's mapped copy of a layer has other times of some directories
				shown, mounted = withoutDirTimes(shown), withoutDirTimes(mounted)
			}
			same(t, "the mapped container", shown, mounted)
			s.Kimg("commit", "c", "localhost/result")
			same(t, "the image through podman", want, s.ImageTree("podman", "localhost/result"))
			same(t, "the image through skopeo and untar", want, untarred(t, s, "localhost/result"))
		})
	}
}

var dirTime = regexp.MustCompile(`(?m)^("(?:[^"\\]|\\.)*" dir \d+ \d+:\d+) t\d+`)

func withoutDirTimes(snapshot string) string { return dirTime.ReplaceAllString(snapshot, "$1") }

// TestUnmappableOwner: a file whose owner has no id in the container cannot be in its image; the commit names it.
func TestUnmappableOwner(t *testing.T) {
	testenv.Root(t) // an ordinary user cannot make such a file
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg(append(append([]string{"from", "--name", "c"}, idMap()...), "localhost/base")...)
	path := s.Kimg("mount", "c")
	if err := os.WriteFile(filepath.Join(path, "opt", "of-the-host"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Kimg("umount", "c")
	before := s.Kimg("images", "--json")
	r := s.Try("commit", "c", "localhost/result")
	if r.Code != 1 || !strings.Contains(r.Stderr, "opt/of-the-host") {
		t.Errorf("commit: exit %d, %q: wanted a refusal that names the file", r.Code, r.Stderr)
	}
	if after := s.Kimg("images", "--json"); after != before {
		t.Errorf("the refused commit changed the images:\n%s\n%s", before, after)
	}
}

// TestBuildahControl keeps the reason for our own walker in sight: buildah commits host ids inside access control lists
// and capabilities of a mapped container, or loses them.
func TestBuildahControl(t *testing.T) {
	testenv.Root(t)
	testenv.Need(t, "buildah")
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "plain", "localhost/base")
	s.In("plain", "change", "mapped")
	want := s.In("plain", "snapshot")

	ctr := s.Peer("buildah", "from", "--pull-never", "--userns-uid-map=0:100000:65536", "--userns-gid-map=0:100000:65536", "localhost/base")
	path := s.Peer("buildah", "mount", ctr)
	lab.HelperMapped(t, 100000, 65536, "change", path, "mapped")
	s.Peer("buildah", "umount", ctr)
	s.Peer("buildah", "commit", "-q", ctr, "localhost/control")
	if lab.Compare(want, untarred(t, s, "localhost/control")) == "" {
		t.Error("buildah is right here now: the control has lost its meaning")
	}
}

// addSource is a directory to add.
func addSource(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(lab.TempDir(t), "src")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"a", "sub/b"} {
		path := filepath.Join(dir, f)
		if err := os.WriteFile(path, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"a", "sub/b", "sub", "."} {
		if err := os.Chtimes(filepath.Join(dir, f), lab.Then, lab.Then); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
