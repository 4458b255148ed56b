//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

// converted is what the tests read of kimg convert --json.
type converted struct {
	OldDigest, NewDigest, ConfigDigest string
	DiffIDs                            []string
	Report                             []struct{ Path, Kind, Why string }
}

// convert runs kimg convert on one image.
func convert(t *testing.T, args ...string) converted {
	t.Helper()
	var out struct{ Images []converted }
	text := lab.Must(t, nil, append([]string{lab.Kimg(t), "--json", "convert", "--no-sync"}, args...)...)
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Images) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	return out.Images[0]
}

// skopeo runs skopeo where no store and so no namespace is needed.
func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	return lab.Must(t, nil, append([]string{"skopeo", "--insecure-policy"}, args...)...)
}

// meaning is what two converters must agree on.
type meaning struct {
	Architecture, OS string
	RootFS           struct {
		DiffIDs []string `json:"diff_ids"`
	}
	History []struct {
		Created    string
		CreatedBy  string `json:"created_by"`
		Author     string
		Comment    string
		EmptyLayer bool `json:"empty_layer"`
	}
	Config struct {
		User, WorkingDir, StopSignal string
		Env, Entrypoint, Cmd         []string
		ExposedPorts, Volumes        map[string]struct{}
		Labels                       map[string]string
	}
}

// config returns an image's configuration as skopeo reads it.
func config(t *testing.T, ref string) (m meaning, raw string) {
	t.Helper()
	raw = skopeo(t, "inspect", "--config", "--raw", ref)
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return m, raw
}

// old are schema 1 images. Where oracle is false, skopeo gives them another configuration than Docker does, or loses
// something: docs/conversion.md says what.
func old() map[string]struct {
	image  testimage.V1Options
	oracle bool
} {
	shared := testimage.NewLayer(77, "gzip", 0)
	ofItsTime := func(history []testimage.V1Entry) []testimage.V1Entry { // what re-encoding does to later members depends on the release
		for _, e := range history {
			for _, c := range []any{e.JSON["config"], e.JSON["container_config"]} {
				c, _ := c.(map[string]any)
				maps.DeleteFunc(c, func(key string, _ any) bool {
					return slices.Contains([]string{"Healthcheck", "Shell", "StopTimeout", "ArgsEscaped"}, key)
				})
			}
		}
		return history
	}
	return map[string]struct {
		image  testimage.V1Options
		oracle bool
	}{
		"signed":         {testimage.V1Options{Seed: 1, Layers: 3, Empty: 3, Signed: true}, true},
		"unsigned":       {testimage.V1Options{Seed: 2, Layers: 2, Empty: 1, DockerVersion: "1.12.6"}, true},
		"one layer":      {testimage.V1Options{Seed: 3, Signed: true}, true},
		"repeated blobs": {testimage.V1Options{Seed: 4, Base: []testimage.ImageLayer{shared, shared}, Layers: 1, Signed: true}, true},
		"no version":     {testimage.V1Options{Seed: 5, DockerVersion: "-", Empty: 1}, true},
		"Docker 1.7":     {testimage.V1Options{Seed: 6, Layers: 2, Old: true, DockerVersion: "1.7.1", Change: ofItsTime}, false},
		"compressions":   {testimage.V1Options{Seed: 7, Layers: 4, Compression: []string{"gzip", "plain", "bzip2", "xz"}}, true},
	}
}

// TestOracleSchema1 converts schema 1 images with kimg and with skopeo.
func TestOracleSchema1(t *testing.T) {
	testenv.Need(t, "skopeo")
	for name, c := range old() {
		t.Run(name, func(t *testing.T) {
			dir, img := lab.TempDir(t), testimage.NewV1(c.image)
			src := "dir:" + filepath.Join(dir, "src")
			if err := img.WriteDir(src[4:]); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{"v2s2", "oci"} {
				ours, theirs := "dir:"+filepath.Join(dir, "kimg-"+f), "dir:"+filepath.Join(dir, "skopeo-"+f)
				skopeo(t, "copy", "-q", "-f", f, src, theirs)
				got := convert(t, "--proof", "--format", f, src, ours)
				if !slices.Equal(got.DiffIDs, img.DiffIDs()) || got.OldDigest != testimage.Digest(img.Payload) {
					t.Errorf("%+v", got)
				}
				a, rawA := config(t, ours)
				b, rawB := config(t, theirs)
				if !reflect.DeepEqual(a, b) || !slices.Equal(a.RootFS.DiffIDs, img.DiffIDs()) {
					t.Errorf("%s: kimg says %+v, skopeo %+v", f, a, b)
				}
				if f == "v2s2" && rawA != rawB && c.oracle {
					t.Errorf("the configurations differ:\n%s\n%s", rawA, rawB)
				}
			}
			if !c.oracle {
				convert(t, "--exact-docker-id", src, "dir:"+filepath.Join(dir, "exact"))
				_, a := config(t, "dir:"+filepath.Join(dir, "exact"))
				if _, b := config(t, "dir:"+filepath.Join(dir, "skopeo-v2s2")); a != b {
					t.Errorf("with --exact-docker-id the configurations differ:\n%s\n%s", a, b)
				}
			}
		})
	}
}

// TestOracleSchema2 does the same between schema 2 and OCI, and to schema 1.
func TestOracleSchema2(t *testing.T) {
	testenv.Need(t, "skopeo")
	steps := func(config map[string]any) { // with steps that have no layer
		h, _ := config["history"].([]any)
		none := map[string]any{"created": "2020-02-02T02:02:02Z", "created_by": "ENV <a>=b", "empty_layer": true}
		config["history"] = append([]any{h[0], none}, h[1:]...)
		config["created"] = "2021-01-01T01:01:01.123456789Z"
	}
	for i, o := range []testimage.ImageOptions{{Layers: 3, Gzip: true, Change: steps}, {Layers: 2, Gzip: true, Docker: true, Change: steps}, {Gzip: true}, {Gzip: true, Docker: true}} {
		from := map[bool]string{true: "v2s2", false: "oci"}[o.Docker]
		dir, img := lab.TempDir(t), testimage.NewImage(uint64(i), o)
		src := "dir:" + filepath.Join(dir, "src")
		if err := img.WriteDir(src[4:]); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"v2s2", "oci", "v2s1"} {
			t.Run(fmt.Sprintf("%s to %s, %d layers", from, to, len(img.Layers)), func(t *testing.T) {
				ours, theirs := filepath.Join(dir, "kimg-"+to), filepath.Join(dir, "skopeo-"+to)
				convert(t, "--proof", "--format", to, src, "dir:"+ours)
				skopeo(t, "copy", "-q", "-f", to, src, "dir:"+theirs)
				if to == "v2s1" {
					sameSchema1(t, ours, theirs)
					// A second conversion, by the other one each, makes them comparable.
					skopeo(t, "copy", "-q", "-f", "v2s2", "dir:"+ours, "dir:"+ours+"-2")
					convert(t, "--format", "v2s2", "dir:"+theirs, "dir:"+theirs+"-2")
					ours, theirs = ours+"-2", theirs+"-2"
				}
				a, rawA := config(t, "dir:"+ours)
				b, rawB := config(t, "dir:"+theirs)
				if to == "v2s1" && len(b.History) > 0 { // kimg keeps what the last step was, skopeo does not
					b.History[len(b.History)-1].CreatedBy = a.History[len(a.History)-1].CreatedBy
				}
				if !reflect.DeepEqual(a, b) {
					t.Errorf("kimg says %+v, skopeo %+v", a, b)
				}
				if want := string(img.Config); to != "v2s1" && (rawA != want || from == to && rawB != want) {
					t.Errorf("the configuration was rewritten:\n%s", rawA)
				}
			})
		}
	}
}

// sameSchema1 compares schema 1 manifests as far as skopeo's are right: layers, ids of all but the top entry, flags.
func sameSchema1(t *testing.T, ours, theirs string) {
	t.Helper()
	type entry struct {
		ID, Parent string
		Throwaway  bool
	}
	read := func(dir string) (layers []string, entries []entry) {
		var m struct {
			FSLayers []struct{ BlobSum string }
			History  []struct{ V1Compatibility string }
		}
		readJSON(t, filepath.Join(dir, "manifest.json"), &m)
		for i, h := range m.History {
			var e entry
			if err := json.Unmarshal([]byte(h.V1Compatibility), &e); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				e.ID = "" // a digest over the configuration
			}
			layers, entries = append(layers, m.FSLayers[i].BlobSum), append(entries, e)
		}
		return layers, entries
	}
	a, entriesA := read(ours)
	b, entriesB := read(theirs)
	if !slices.Equal(a, b) || !slices.Equal(entriesA, entriesB) {
		t.Errorf("kimg wrote\n%v %v\nskopeo\n%v %v", a, entriesA, b, entriesB)
	}
}

// TestPeersReadConversions: podman, buildah and umoci show the tree of an old image that kimg converted.
func TestPeersReadConversions(t *testing.T) {
	testenv.Need(t, "podman", "buildah", "skopeo", "umoci")
	dir := lab.TempDir(t)
	img := testimage.NewV1(testimage.V1Options{Seed: 11, Layers: 4, Empty: 2, Signed: true, Compression: []string{"gzip", "plain", "bzip2", "xz"}})
	src := "dir:" + filepath.Join(dir, "src")
	if err := img.WriteDir(src[4:]); err != nil {
		t.Fatal(err)
	}
	want := tree(t, img.Layers)
	layout := "oci:" + filepath.Join(dir, "layout") + ":t"
	convert(t, src, layout)
	for form, ref := range map[string]string{
		"oci-archive": "oci-archive:" + filepath.Join(dir, "oci.tar") + ":localhost/old:t", "docker-archive": "docker-archive:" + filepath.Join(dir, "docker.tar") + ":localhost/old:t",
	} {
		t.Run(form, func(t *testing.T) {
			s := lab.NewStore(t, "")
			convert(t, src, ref)
			file := strings.SplitN(ref, ":", 3)[1]
			s.Peer("podman", "load", "-q", "-i", file)
			same(t, "podman", want, s.ImageTree("podman", "localhost/old:t"))
		})
	}
	t.Run("layout", func(t *testing.T) {
		s := lab.NewStore(t, "")
		same(t, "podman, of what buildah pulled", want, s.ImageTree("podman", s.Peer("buildah", "pull", "-q", layout)))
		bundle := filepath.Join(dir, "bundle")
		lab.Must(t, nil, lab.Unshared("umoci", "unpack", "--image", layout[4:], bundle)...)
		same(t, "umoci", want, lab.Helper(t, "snapshot", filepath.Join(bundle, "rootfs")))
	})
	t.Run("store", func(t *testing.T) {
		s := lab.NewStore(t, "")
		s.Kimg("convert", "--proof", src, "containers-storage:localhost/old:t")
		same(t, "podman", want, s.ImageTree("podman", "localhost/old:t"))
		s.CheckClean()
	})
}

// tree is what the layers of an image show, unpacked by the tests' own untar.
func tree(t *testing.T, layers []testimage.ImageLayer) string {
	t.Helper()
	dir := lab.TempDir(t)
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	var tars []string
	for i, l := range layers {
		tars = append(tars, filepath.Join(dir, fmt.Sprintf("%d.tar", i)))
		if err := os.WriteFile(tars[i], l.Tar, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lab.Helper(t, "untar", root, tars...)
	return lab.Helper(t, "snapshot", root)
}

// TestReadsWhatPeersWrite converts what podman saves and skopeo copies.
func TestReadsWhatPeersWrite(t *testing.T) {
	testenv.Need(t, "podman", "skopeo")
	dir, s := lab.TempDir(t), lab.NewStore(t, "")
	img := testimage.NewImage(21, testimage.ImageOptions{Layers: 3, Gzip: true, Docker: true})
	src := "dir:" + filepath.Join(dir, "src")
	if err := img.WriteDir(src[4:]); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, l := range img.Layers {
		want = append(want, l.DiffID)
	}
	lab.Skopeo(t, "copy", "-q", src, s.Reference("localhost/image:t"))
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, format := range []string{"docker-archive", "oci-archive", "docker-dir", "oci-dir"} {
		s.Peer("podman", "save", "-q", "--format", format, "-o", file("podman-"+format), "localhost/image:t")
	}
	for name, ref := range map[string]string{"dir-v2s1": "dir:" + file("v2s1"), "oci": "oci:" + file("oci") + ":t", "docker-archive": "docker-archive:" + file("d.tar") + ":localhost/image:t", "oci-archive": "oci-archive:" + file("o.tar")} {
		flags := []string{"copy", "-q"}
		if name == "dir-v2s1" {
			flags = append(flags, "-f", "v2s1")
		}
		skopeo(t, append(flags, src, ref)...)
	}
	for i, ref := range []string{
		"docker-archive:" + file("podman-docker-archive"), "oci-archive:" + file("podman-oci-archive"), "dir:" + file("podman-docker-dir"), "oci:" + file("podman-oci-dir"),
		"dir:" + file("v2s1"), "oci:" + file("oci") + ":t", "docker-archive:" + file("d.tar") + ":localhost/image:t", "oci-archive:" + file("o.tar"), s.Reference("localhost/image:t"),
	} {
		to := fmt.Sprintf("oci:%s:t%d", file("all"), i)
		if strings.HasPrefix(ref, "containers-storage:") {
			s.Kimg("convert", "--proof", "localhost/image:t", to)
		} else if got := convert(t, "--proof", ref, to); !slices.Equal(got.DiffIDs, want) {
			t.Errorf("%s: %v, wanted %v", ref, got.DiffIDs, want)
		}
		if m, _ := config(t, to); !slices.Equal(m.RootFS.DiffIDs, want) {
			t.Errorf("%s: %v, wanted %v", ref, m.RootFS.DiffIDs, want)
		}
	}
}
