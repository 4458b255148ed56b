//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// TestSkopeoReadsEveryDestination commits a container to each kind of destination, in each format and compression it can
// hold, and has skopeo verify every blob and unpack the layers: their digests are the diff IDs then.
func TestSkopeoReadsEveryDestination(t *testing.T) {
	testenv.Need(t, "skopeo")
	addr, dir := lab.Registry(t), lab.TempDir(t)
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.In("c", "change", "one", "two")
	s.Kimg("commit", "--timestamp", "1700000000", "c", "localhost/result")
	want := diffIDs(t, s, "localhost/result")
	n, wrong := 0, 0
	for _, format := range []string{"oci", "docker"} {
		for _, compression := range []string{"none", "gzip", "zstd", "zstd:chunked"} {
			name := format + "-" + strings.ReplaceAll(compression, ":", "-")
			at := filepath.Join(dir, name)
			var dests []string
			for dest, holds := range map[string]bool{
				"dir:" + at + ".dir":                               true,
				"docker://" + addr + "/lab/app:" + name:            true,
				"oci:" + filepath.Join(dir, "layout") + ":" + name: format == "oci",
				"oci-archive:" + at + ".tar:x":                     format == "oci",
				"docker-archive:" + at + ".tar:localhost/x:1":      format == "docker" && compression == "none",
			} {
				if holds && (format == "oci" || !strings.HasPrefix(compression, "zstd")) {
					dests = append(dests, dest)
					continue
				}
				wrong++
				r := s.Try("commit", "--format", format, "--compression", compression, "nosuch", "localhost/none", dest) // nobody looks for the container
				if r.Code != 2 || !strings.HasPrefix(r.Stderr, "kimg: invalid: ") {
					t.Errorf("%s of %s to %s: exit %d, %s", format, compression, dest, r.Code, r.Stderr)
				}
			}
			if len(dests) == 0 {
				continue
			}
			id := s.Kimg(append([]string{"commit", "--timestamp", "1700000000", "--format", format, "--compression", compression, "c"}, dests...)...)
			for _, dest := range dests {
				n++
				out := filepath.Join(dir, fmt.Sprint("out", n))
				lab.Skopeo(t, "copy", "--quiet", "--src-tls-verify=false", "--dest-decompress", dest, "dir:"+out)
				m := readManifest(t, filepath.Join(out, "manifest.json"))
				var got []string
				for _, l := range m.Layers {
					got = append(got, l.Digest)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: layers %v, want %v", dest, got, want)
				}
				if m.Config.Digest != "sha256:"+strings.TrimSpace(id) {
					t.Errorf("%s: the configuration is %s, the image %s", dest, m.Config.Digest, id)
				}
				// Of a docker-archive skopeo says that layers are compressed, whatever they are.
				raw := lab.Skopeo(t, "inspect", "--tls-verify=false", "--raw", dest)
				is := "none"
				for _, algorithm := range []string{"gzip", "zstd"} {
					if strings.Contains(raw, "tar+"+algorithm) || strings.Contains(raw, "tar."+algorithm) {
						is = algorithm
					}
				}
				if !strings.HasPrefix(compression, is) && !strings.HasPrefix(dest, "docker-archive:") {
					t.Errorf("%s is not of compression %s:\n%s", dest, compression, raw)
				}
			}
		}
	}
	if n != 21 || wrong != 19 {
		t.Errorf("%d destinations, %d wrong ones", n, wrong)
	}

	// Squashed it is one layer, the same in the store and elsewhere, and the same tree.
	squashed := "dir:" + filepath.Join(dir, "squashed")
	s.Kimg("commit", "--squash", "c", "localhost/squashed", squashed)
	one := diffIDs(t, s, "localhost/squashed")
	if m := readManifest(t, filepath.Join(dir, "squashed", "manifest.json")); len(one) != 1 || len(m.Layers) != 1 || m.Layers[0].Digest != one[0] {
		t.Errorf("squashed: %v in the store, %v elsewhere", one, m.Layers)
	}
	same(t, "the squashed image", untarred(t, s, "localhost/result"), untarred(t, s, "localhost/squashed"))
}
