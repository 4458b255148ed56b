package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

// TestCopyDataOfSchema1Image makes a container of an image as it was pulled from an old registry.
func TestCopyDataOfSchema1Image(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	v := testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 2, Empty: 1, Signed: true})
	top, diffIDs := "", []digest.Digest{}
	for _, l := range v.Layers {
		added, err := ts.AddLayer(ctx, top, store.TarSource(bytes.NewReader(v.Blobs[l.Digest])))
		must(t, err)
		top, diffIDs = added.ID, append(diffIDs, added.UncompressedDigest)
	}
	rec, err := ts.Storage().CreateImage("", []string{"localhost/v1:latest"}, top, "", nil)
	must(t, err)
	d, err := convert.ManifestDigest(v.Manifest)
	must(t, err)
	must(t, ts.Storage().SetImageBigData(rec.ID, "manifest", v.Manifest, func([]byte) (digest.Digest, error) { return d, nil }))
	img, err := ts.Resolve(ctx, "v1", nil)
	must(t, err)
	_, err = ts.NewContainer(ctx, img, store.ContainerOptions{Name: "c"})
	must(t, err)
	state, _, err := ts.CopyData(ctx, "c")
	must(t, err)
	of, err := ts.ImageCopyData(ctx, "v1")
	must(t, err)
	for _, s := range []*copydata.CopyData{state, of} {
		if s.Source().Format != convert.DockerV2S1 || !bytes.Equal(s.Source().Manifest, v.Manifest) || fmt.Sprint(s.Config().OCI().RootFS.DiffIDs) != fmt.Sprint(diffIDs) {
			t.Errorf("%+v", s.Config().OCI())
		}
	}
	if err := of.Save(ts.Dir()); !errors.Is(err, kimg.ErrInvalid) {
		t.Errorf("the state of an image was saved: %v", err)
	}
}

// TestIndexAnnotationsReachTheState makes a container of an image that a manifest list names.
func TestIndexAnnotationsReachTheState(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "f", "one")
	index, err := json.Marshal(ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Annotations: map[string]string{"of": "index"},
		Manifests: []ispec.Descriptor{{MediaType: ispec.MediaTypeImageManifest, Digest: img.Digest, Size: 1, Platform: &ispec.Platform{OS: "linux", Architecture: "amd64"}}},
	})
	must(t, err)
	rec, err := ts.Storage().CreateImage("", []string{"localhost/list:latest"}, "", "", nil)
	must(t, err)
	must(t, ts.Storage().SetImageBigData(rec.ID, "manifest", index, func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }))
	must(t, ts.Storage().SetImageBigData(rec.ID, "instances.json", []byte("{}"), nil))
	chosen, err := ts.Resolve(ctx, "list", &ispec.Platform{OS: "linux", Architecture: "amd64"})
	must(t, err)
	_, err = ts.NewContainer(ctx, chosen, store.ContainerOptions{Name: "c"})
	must(t, err)
	state, _, err := ts.CopyData(ctx, "c")
	if err != nil || state.Annotations()["of"] != "index" {
		t.Errorf("%v %v", err, state)
	}
}

// TestCopyDataOfForeignContainers reads what other tools leave in a store.
func TestCopyDataOfForeignContainers(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	img := ts.addImage(t, "f", "base")
	const podman = `{"image-name":"asked/for:1","image-id":"x","name":"n","created-at":1}`
	long := "k8s_" + strings.Repeat("x", 200)
	for name, metadata := range map[string]string{long: `{"pod-id":"p"}`, "created": podman, "started": podman, "broken": podman, "built": "", "nobody": ""} {
		rec, err := ts.Storage().CreateContainer("", []string{name}, img.ID, "", metadata, nil)
		must(t, err)
		file, data := copydata.RuntimeFile, `{"process":{"args":["/x"],"cwd":"/"}}`
		switch name {
		case "broken":
			data = "SECRET"
		case "built":
			file, data = copydata.BuildahFile, fmt.Sprintf(`{"type":"buildah 0.0.1","image":"base","image-id":%q,"container-id":%q,
"ociv1":{"os":"linux","architecture":"amd64","config":{"User":"u"}},"docker":{"os":"linux","architecture":"amd64","config":{"User":"u"}}}`, img.ID, rec.ID)
		case "started":
		default:
			continue
		}
		must(t, ts.Storage().SetContainerDirectoryFile(rec.ID, file, []byte(data)))
	}
	before := ts.inventory(t)
	for name, want := range map[string]docker.Config{long: {}, "created": {}, "started": {Cmd: docker.Strings{"/x"}}, "built": {User: "u"}, "nobody": {}} {
		state, report, err := ts.CopyData(ctx, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := state.Config().Docker().Config
		if fmt.Sprint(*got) != fmt.Sprint(want) || (report == nil) != (name == "built") {
			t.Errorf("%s: %+v, %v", name, got, report)
		}
		if asked := state.ImageName(); name == "created" && asked != "asked/for:1" || name == "nobody" && asked != "localhost/base:latest" {
			t.Errorf("%s: of image %s", name, asked)
		}
	}
	if _, _, err := ts.CopyData(ctx, "broken"); !errors.Is(err, kimg.ErrState) || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
	if _, err := ts.RebuildState(ctx, "built", nil); !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
	if got := ts.inventory(t); got != before {
		t.Errorf("reading wrote:\n%s", diff(before, got))
	}
	// A state of ours beside podman's files makes the container not ours to remove.
	state, _, err := ts.CopyData(ctx, "started")
	must(t, err)
	must(t, state.Save(ts.Dir()))
	must(t, os.Remove(ts.userdata(mustContainer(t, ts, "started"), copydata.RuntimeFile)))
	state, _, err = ts.CopyData(ctx, "started")
	if err != nil || state.Config().Docker().Config.Cmd[0] != "/x" {
		t.Error(err)
	}
	if err := mustContainer(t, ts, "started").Remove(ctx); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("remove: %v", err)
	}
}

func mustContainer(t *testing.T, ts *testStore, name string) *store.Container {
	t.Helper()
	c, err := ts.Container(t.Context(), name)
	must(t, err)
	return c
}

// TestRunning finds the process of a container by the engine's pid file.
func TestRunning(t *testing.T) {
	ts := newStore(t)
	img := ts.addImage(t, "f", "base")
	rec, err := ts.Storage().CreateContainer("", []string{"p"}, img.ID, "", `{"image-id":"x","name":"n"}`, nil)
	must(t, err)
	dir, err := ts.Storage().ContainerRunDirectory(rec.ID)
	must(t, err)
	c := mustContainer(t, ts, "p")
	for text, want := range map[string]int{"": 0, fmt.Sprint(os.Getpid()): os.Getpid(), fmt.Sprintln(os.Getpid()): os.Getpid(), "0": 0, "-1": 0, "x": 0, "4194305": 0} {
		write(t, filepath.Join(dir, "pidfile"), text)
		if pid, err := c.Running(); err != nil || pid != want {
			t.Errorf("%q: %d, %v", text, pid, err)
		}
	}
	must(t, os.Remove(filepath.Join(dir, "pidfile")))
	if pid, err := c.Running(); pid != 0 || err != nil {
		t.Error(pid, err)
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "pidfile")))
	if _, err := c.Running(); !errors.Is(err, kimg.ErrUnsafe) {
		t.Error(err)
	}
}
