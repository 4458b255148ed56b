//go:build interop

package interop

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// TestPeersShowTheSameTree commits a busy container on a Debian root file system and holds every peer's view of the
// result against kimg's mounted container.
func TestPeersShowTheSameTree(t *testing.T) {
	testenv.Need(t, "podman", "buildah", "skopeo", "umoci", "chroot")
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.Debian(t), "localhost/deb")
	s.Kimg("from", "--name", "busy", "localhost/deb")
	s.In("busy", "change", "workload")
	want := s.In("busy", "snapshot")
	if n := strings.Count(want, "\n"); n < 25000 {
		t.Fatalf("only %d files in the container", n)
	}
	s.Kimg("commit", "busy", "localhost/result")

	t.Run("podman", func(t *testing.T) { same(t, "podman", want, s.On(t).ImageTree("podman", "localhost/result")) })
	t.Run("buildah", func(t *testing.T) { same(t, "buildah", want, s.On(t).ImageTree("buildah", "localhost/result")) })
	t.Run("skopeo", func(t *testing.T) { same(t, "skopeo and an untar", want, untarred(t, s.On(t), "localhost/result")) })
	t.Run("kimg", func(t *testing.T) {
		s := s.On(t)
		s.Kimg("from", "--name", "again", "localhost/result")
		same(t, "a container of the image", want, s.In("again", "snapshot"))
	})
	t.Run("umoci", func(t *testing.T) {
		s := s.On(t)
		dir := lab.TempDir(t)
		layout, bundle := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle")
		s.Kimg("commit", "--compression", "gzip", "busy", "oci:"+layout+":latest")
		for _, l := range layoutManifest(t, layout).Layers {
			if !strings.HasSuffix(l.MediaType, "tar+gzip") {
				t.Errorf("a layer is %s, wanted gzip", l.MediaType)
			}
		}
		lab.Must(t, nil, lab.Unshared("umoci", "unpack", "--image", layout+":latest", bundle)...)
		tree := lab.Helper(t, "snapshot", filepath.Join(bundle, "rootfs"))
		if !testenv.IsRoot() { // documented: umoci stands an empty file in for each device
			tree = emptyDevice.ReplaceAllString(tree, "")
		}
		same(t, "umoci", want, tree)
	})
	t.Run("chroot", func(t *testing.T) {
		s := s.On(t)
		script := `chroot "$KIMG_ROOT" /bin/bash -c 'echo works on $(cat /srv/kinds/cap)'`
		if got := s.Kimg("mount", "busy", "--", "sh", "-c", script); got != "works on x" {
			t.Errorf("a program of the tree printed %q", got)
		}
	})
	s.CheckClean()
}

var emptyDevice = regexp.MustCompile(`(?m)^"dev/[a-z]+" file 0666 .* 0 e3b0c44298fc1c149afbf4c8\n`)

// layoutManifest reads the one manifest of an OCI layout.
func layoutManifest(t *testing.T, layout string) manifest {
	t.Helper()
	var index struct{ Manifests []struct{ Digest string } }
	readJSON(t, filepath.Join(layout, "index.json"), &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d manifests in the layout", len(index.Manifests))
	}
	return readManifest(t, filepath.Join(layout, "blobs", "sha256", index.Manifests[0].Digest[len("sha256:"):]))
}

// goldenLayer is the digest of the layer below, on every store and for every user. It changes only when the layer format
// does, which is a change users see: their layers are pushed again.
const goldenLayer = "sha256:15ba62be00ff5a428a5574b7ef570aadb9bb62844b4e158deb0d559275e38a9d"

// TestSameContentSameDigest makes the same changes under one mount or several, on two stores. As root and as a user the
// constant is the same, so the runs agree with each other too.
func TestSameContentSameDigest(t *testing.T) {
	base := lab.SmallBase(t)
	for name, mounts := range map[string][][]string{
		"one mount":  {{"one", "two"}},
		"two mounts": {{"one"}, {"two"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := lab.NewStore(t, "")
			s.Kimg("import", base, "localhost/base")
			s.Kimg("from", "--name", "c", "localhost/base")
			for _, m := range mounts {
				s.In("c", "change", m...)
			}
			s.Kimg("commit", "c", "localhost/result")
			ids := diffIDs(t, s, "localhost/result")
			if len(ids) != 2 || ids[1] != goldenLayer {
				t.Errorf("layers %v, wanted %s on top", ids, goldenLayer)
			}
		})
	}
}
