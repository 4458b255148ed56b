//go:build interop

package interop

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

// packers are the commands that made the layers of other people's images.
var packers = []struct {
	argv []string
	kind string
}{{[]string{"gzip", "-9"}, "gzip"}, {[]string{"pigz"}, "gzip"}, {[]string{"zstd", "-q"}, "zstd"}}

// writeBlob puts a blob into a layout and describes it.
func writeBlob(t *testing.T, layout, mediaType string, data []byte) map[string]any {
	t.Helper()
	if err := os.WriteFile(filepath.Join(layout, "blobs/sha256", testimage.Digest(data)[7:]), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"mediaType": mediaType, "digest": testimage.Digest(data), "size": len(data)}
}

// foreignIndex writes a layout with an index of three platforms, each with an attestation as BuildKit makes them; the layers were
// compressed by packers. It returns the digest of the index and the layers of this machine's image.
func foreignIndex(t *testing.T, layout string) (index string, tars []string) {
	t.Helper()
	const oci = "application/vnd.oci.image."
	write := func(mediaType string, v any) map[string]any {
		data, err := json.MarshalIndent(v, "", "   ") // no program of ours writes it so
		if err != nil {
			t.Fatal(err)
		}
		return writeBlob(t, layout, mediaType, data)
	}
	if err := os.MkdirAll(filepath.Join(layout, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/sbin/ldconfig") // is linked statically
	if err != nil {
		t.Fatal(err)
	}
	var images, attestations []any
	for n, arch := range []string{"riscv64", runtime.GOARCH, "s390x"} {
		var layers, diffIDs []any
		for l, p := range packers {
			name := p.argv[0] + "-" + arch
			data := testimage.PackTar(
				testimage.Member{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1e9, 0)}},
				testimage.Member{Header: tar.Header{Name: name, Mode: 0o755, Size: int64(len(program)), ModTime: time.Unix(1e9, 0)}, Content: string(program)},
				testimage.Member{Header: tar.Header{Name: "etc/arch", Mode: 0o644, Size: int64(len(name)), ModTime: time.Unix(1e9, 0)}, Content: name})
			if n == 1 {
				tars = append(tars, filepath.Join(layout, "..", p.argv[0]))
				if err := os.WriteFile(tars[l], data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(p.argv[0], p.argv[1:]...)
			cmd.Stdin = bytes.NewReader(data)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			layers, diffIDs = append(layers, writeBlob(t, layout, oci+"layer.v1.tar+"+p.kind, packed)), append(diffIDs, testimage.Digest(data))
		}
		platform := map[string]any{"architecture": arch, "os": "linux"}
		config := write(oci+"config.v1+json", map[string]any{
			"architecture": arch, "os": "linux", "config": map[string]any{"Cmd": []string{"/pigz-" + arch, "--version"}}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
		})
		image := write(oci+"manifest.v1+json", map[string]any{"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": layers})
		image["platform"] = platform
		images = append(images, image)

		statement := write("application/vnd.in-toto+json", map[string]any{"_type": "https://in-toto.io/Statement/v0.1", "subject": []any{map[string]any{"name": arch}}})
		statement["annotations"] = map[string]any{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
		config = write(oci+"config.v1+json", map[string]any{
			"architecture": "unknown", "os": "unknown", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": []any{statement["digest"]}},
		})
		about := write(oci+"manifest.v1+json", map[string]any{"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": []any{statement}})
		about["platform"] = map[string]any{"architecture": "unknown", "os": "unknown"}
		about["annotations"] = map[string]any{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
		attestations = append(attestations, about)
	}
	top := write(oci+"index.v1+json", map[string]any{"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": append(images, attestations...)})
	top["annotations"] = map[string]any{"org.opencontainers.image.ref.name": "localhost/app:1"}
	list, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{top}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"index.json": list, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(layout, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return top["digest"].(string), tars
}

// TestWholeIndex: an index that others made goes through load, save, load and copy, and is the same at the end, every blob of it; podman
// reads it on the way.
func TestWholeIndex(t *testing.T) {
	testenv.Need(t, "pigz", "zstd", "podman")
	dir := lab.TempDir(t)
	in, out, archive := dir+"/in", dir+"/out", dir+"/app.tar"
	index, tars := foreignIndex(t, in)
	if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Helper(t, "untar", dir+"/tree", tars...)
	want := lab.Helper(t, "snapshot", dir+"/tree")
	reads := func(s *lab.Store) {
		t.Helper()
		same(t, "podman", want, s.ImageTree("podman", "localhost/app:1"))
		if !testenv.IsRoot() { // runc in a namespace needs more than test machines give
			return
		}
		run := s.Peer("podman", "--runtime", "runc", "run", "--rm", "--pull=never", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "localhost/app:1")
		if !strings.Contains(run, "ldconfig") {
			t.Errorf("podman run: %s", run)
		}
	}
	first, second, podmans := lab.NewStore(t, ""), lab.NewStore(t, ""), lab.NewStore(t, "")
	if out := first.Kimg("load", "--keep-blobs", "-i", in); out != "Loaded image: localhost/app:1" {
		t.Errorf("kimg load: %s", out)
	}
	reads(first)
	var seen struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal([]byte(first.Peer("podman", "manifest", "inspect", "localhost/app:1")), &seen); err != nil || len(seen.Manifests) != 6 {
		t.Errorf("podman manifest inspect: %v, %+v", err, seen)
	}
	first.Kimg("save", "--preserve-digests", "-o", archive, "localhost/app:1")
	podmans.Peer("podman", "load", "-i", archive)
	reads(podmans)
	second.Kimg("load", "--keep-blobs", "-i", archive)
	reads(second)
	second.Kimg("save", "-o", dir+"/again.tar", "localhost/app:1")
	lab.Must(t, nil, "cmp", archive, dir+"/again.tar")
	second.Kimg("copy", "--all", "localhost/app:1", "oci:"+out+":localhost/app:1")
	lab.Must(t, nil, "diff", "-r", in+"/blobs", out+"/blobs")
	var top struct{ Manifests []struct{ Digest string } }
	if readJSON(t, out+"/index.json", &top); len(top.Manifests) != 1 || top.Manifests[0].Digest != index {
		t.Errorf("%+v at the end, %s at the beginning", top, index)
	}
	for _, s := range []*lab.Store{first, second} {
		s.CheckClean()
	}
	wouldChange(t, in, lab.TempDir(t))
}

// wouldChange: without its blobs an index does not leave the store under its digest. It is said what would help, and nothing is left.
func wouldChange(t *testing.T, in, dir string) {
	t.Helper()
	s := lab.NewStore(t, "")
	s.Kimg("load", "-i", in)
	for _, args := range [][]string{
		{"save", "--preserve-digests", "-o", dir + "/app.tar", "localhost/app:1"},
		{"copy", "--all", "--preserve-digests", "localhost/app:1", "oci:" + dir + "/layout:x"},
	} {
		r := s.Try(args...)
		if r.Code != 1 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || !strings.HasPrefix(r.Stderr, "kimg: unsupported: ") || !strings.Contains(r.Stderr, "--keep-blobs") {
			t.Errorf("%s: %+v", args[0], r)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s left %v, %v", args[0], left, err)
		}
	}
	if leases := s.Kimg("lease", "ls", "--json"); strings.Contains(leases, `"id"`) {
		t.Errorf("leases are left: %s", leases)
	}
	s.CheckClean()
}
