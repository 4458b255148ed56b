package commit_test

import (
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/signature"
	imagestorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/faults"
)

// documents are the manifest and the configuration of an image of the store.
func documents(t *testing.T, s *store.Store, img *store.Image) (m ispec.Manifest, c ispec.Image) {
	t.Helper()
	data, _, err := img.Manifest(t.Context())
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil {
		data, err = s.Storage().ImageBigData(img.ID, m.Config.Digest.String())
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil || digest.FromBytes(data) != m.Config.Digest || m.Config.Size != int64(len(data)) || m.Config.Digest.Encoded() != img.ID {
		t.Fatalf("E13: the configuration is not kept under its digest: %v %+v", err, m.Config)
	}
	return m, c
}

// E12: what nobody said is filled in for an image from scratch; what was said stays.
func TestDefaultsOfScratch(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	img, _ := into(t, s, c, commit.Options{})
	_, got := documents(t, s, img)
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if got.Architecture == "" || got.OS != "linux" || got.RootFS.Type != "layers" || got.RootFS.DiffIDs == nil || got.Config.WorkingDir != "/" || !slices.Equal(got.Config.Env, env) {
		t.Errorf("defaults: %+v", got)
	}
	c, err := s.NewContainer(t.Context(), nil, store.ContainerOptions{Arch: "arm64", Variant: "v8", Edit: func(c *copydata.CopyData) error {
		return c.Update(func(s *copydata.Settings) error {
			s.Image.Config.WorkingDir, s.Image.Config.Env = "/srv", []string{"PATH=/bin"}
			return nil
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	img, _ = into(t, s, c, commit.Options{})
	_, got = documents(t, s, img)
	if got.Architecture != "arm64" || got.Variant != "v8" || got.Config.WorkingDir != "/srv" || !slices.Equal(got.Config.Env, []string{"PATH=/bin"}) {
		t.Errorf("what was said: %+v", got)
	}
	// An image that says nothing on purpose says nothing afterwards.
	bare, _ := into(t, s, c, commit.Options{Change: func(i *docker.Image) error { i.Config.WorkingDir, i.Config.Env = "", nil; return nil }})
	img, _ = into(t, s, container(t, s, bare), commit.Options{})
	if _, got = documents(t, s, img); got.Config.WorkingDir != "" || len(got.Config.Env) != 0 {
		t.Errorf("defaults on top of an image: %+v", got)
	}
}

// E13, E14, E15, E16: the configuration lies under its digest, the manifest has the sizes of what it names, an image needs no
// name, and a name goes from the image that had it to the new one.
func TestRecords(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", strings.Repeat("x", 12345)) })
	first, _ := into(t, s, c, commit.Options{})
	if len(first.Names) != 0 {
		t.Errorf("unnamed: %v", first.Names)
	}
	first, r := into(t, s, c, commit.Options{Names: []string{"app", "other"}}) // the same content: the record gets names
	if !r.LayerExisted || len(first.Names) != 2 {
		t.Errorf("named: %v", first.Names)
	}
	c = container(t, s, first)
	edit(t, c, func(root string) { write(t, root, "g", "x") })
	second, r := into(t, s, c, commit.Options{Names: []string{"app"}})
	old, err := s.Resolve(t.Context(), first.ID, nil)
	if err != nil || !slices.Equal(old.Names, []string{"localhost/other:latest"}) || !slices.Equal(second.Names, []string{"localhost/app:latest"}) {
		t.Errorf("%v, %v, %v", old.Names, second.Names, err)
	}
	m, config := documents(t, s, second)
	if m.SchemaVersion != 2 || m.MediaType != ispec.MediaTypeImageManifest || len(m.Layers) != 2 || !slices.Equal(config.RootFS.DiffIDs, r.DiffIDs) {
		t.Errorf("%+v", m)
	}
	all, err := second.Layers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range all {
		var sum counts
		if err := s.ExportLayer(t.Context(), l.ID, &sum); err != nil || m.Layers[i].Size != int64(sum) || m.Layers[i].Digest != r.DiffIDs[i] {
			t.Errorf("layer %d: %+v, it has %d bytes, %v", i, m.Layers[i], sum, err)
		}
	}
}

type counts int64

func (c *counts) Write(b []byte) (int, error) { *c += counts(len(b)); return len(b), nil }

// E10: after a commit, however it ended, nothing holds on to the container or to its image.
func TestNothingIsHeld(t *testing.T) {
	for _, fail := range []bool{false, true} {
		s := newStore(t)
		c := container(t, s, nil)
		edit(t, c, func(root string) { write(t, root, "f", "x") })
		base, _ := into(t, s, c, commit.Options{})
		c = container(t, s, base)
		edit(t, c, func(root string) { write(t, root, "g", "x") })
		boom := errors.New("boom")
		_, err := commit.Container(t.Context(), s, c.ID, commit.Options{Squash: true, Change: func(*docker.Image) error {
			if fail {
				return boom
			}
			return nil
		}})
		if errors.Is(err, boom) != fail {
			t.Fatal(err)
		}
		if n, err := s.Storage().Mounted(c.LayerID); err != nil || n != 0 {
			t.Errorf("mounted %d times, %v", n, err)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.DeleteImage(t.Context(), base.ID, false); err != nil {
			t.Error(err)
		}
	}
}

// C31: the base is called what the user called it, when it is called so, else by its first name.
func TestNameOfTheBase(t *testing.T) {
	s := newStore(t)
	base, _ := into(t, s, container(t, s, nil), commit.Options{Names: []string{"first", "second"}})
	nameless, _ := into(t, s, container(t, s, nil), commit.Options{CreatedBy: "another"})
	for _, c := range []struct {
		base        *store.Image
		asked, want string
	}{
		{base, "", "localhost/first:latest"}, {base, "second", "localhost/second:latest"}, {base, "localhost/second:latest", "localhost/second:latest"},
		{base, base.ID[:12], "localhost/first:latest"}, {base, "gone", "localhost/first:latest"}, {nameless, "", ""}, {nameless, nameless.ID, ""},
	} {
		made, err := s.NewContainer(t.Context(), c.base, store.ContainerOptions{ImageName: c.asked})
		if err != nil {
			t.Fatal(err)
		}
		img, _ := into(t, s, made, commit.Options{CreatedBy: c.asked})
		if m, _ := documents(t, s, img); m.Annotations[ispec.AnnotationBaseImageName] != c.want || m.Annotations[ispec.AnnotationBaseImageDigest] != c.base.Digest.String() {
			t.Errorf("asked for as %q: %v", c.asked, m.Annotations)
		}
	}
}

// C32: everything a reference can be told reaches the image; without a format it is OCI.
func TestReferenceOptions(t *testing.T) {
	s := newStore(t)
	c := twoLayers(t, s)
	for _, p := range []struct {
		o            commit.Options
		image, layer string
	}{
		{commit.Options{}, ispec.MediaTypeImageManifest, ispec.MediaTypeImageLayer},
		{commit.Options{Compression: layerdiff.Gzip, Level: 1}, ispec.MediaTypeImageManifest, ispec.MediaTypeImageLayerGzip},
		{commit.Options{Compression: layerdiff.Zstd}, ispec.MediaTypeImageManifest, ispec.MediaTypeImageLayerZstd},
		{commit.Options{Format: convert.DockerV2S2}, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar"},
		{commit.Options{Format: convert.DockerV2S2, Compression: layerdiff.Gzip}, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"},
	} {
		p.o.Names, p.o.Created, p.o.CreatedBy = []string{"app", "ignored"}, &day, "by hand"
		p.o.Annotations, p.o.TempDir = map[string]string{"a": "b"}, t.TempDir()
		ref, err := commit.Reference(s, c.ID, p.o)
		if err != nil {
			t.Fatal(err)
		}
		src, err := ref.NewImageSource(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		data, mime, err := src.GetManifest(t.Context(), nil)
		var m ispec.Manifest
		if err != nil || json.Unmarshal(data, &m) != nil || mime != p.image || len(m.Layers) != 2 || ref.DockerReference().String() != "localhost/app:latest" {
			t.Fatalf("%s %s, %v", mime, data, err)
		}
		if named := src.Reference().DockerReference(); named == nil || named.String() != "localhost/app:latest" { // what policies look at
			t.Errorf("the source is of %v", named)
		}
		if m.Layers[0].MediaType != p.layer || m.Layers[1].MediaType != p.layer || (m.Annotations["a"] == "b") != (p.o.Format == "") {
			t.Errorf("%+v", m)
		}
		body, _, err := src.GetBlob(t.Context(), types.BlobInfo{Digest: m.Config.Digest, Size: m.Config.Size}, none.NoCache)
		if err != nil {
			t.Fatal(err)
		}
		var config ispec.Image
		if data, err = io.ReadAll(body); err != nil || json.Unmarshal(data, &config) != nil || len(config.RootFS.DiffIDs) != 2 {
			t.Fatalf("%s, %v", data, err)
		}
		if h := config.History[len(config.History)-1]; h.CreatedBy != "by hand" || !h.Created.Equal(day) || !config.Created.Equal(day) {
			t.Errorf("%+v", config)
		}
		if err := errors.Join(body.Close(), src.Close()); err != nil {
			t.Error(err)
		}
	}
}

// C33: containers/image copies the reference to every transport, and reads the same image there.
func TestReferenceGoesAnywhere(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := twoLayers(t, s)
	addr := serve(t, &faults.Registry{})
	refs := references(t, "oci:"+dir+"/oci:t", "oci-archive:"+dir+"/o.tar:t", "dir:"+dir+"/dir", "docker-archive:"+dir+"/d.tar:localhost/x:1", "docker://"+addr+"/x:1")
	stored, err := imagestorage.Transport.ParseStoreReference(s.Storage(), "localhost/copied:1")
	if err != nil {
		t.Fatal(err)
	}
	_, want := into(t, s, c, commit.Options{})
	sys := system(t)
	for _, dest := range append(refs, stored) {
		ref, err := commit.Reference(s, c.ID, commit.Options{Created: &day, Names: []string{"app"}})
		if err != nil {
			t.Fatal(err)
		}
		policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
		if err != nil {
			t.Fatal(err)
		}
		name := dest.Transport().Name()
		if _, err := copy.Image(t.Context(), policy, dest, ref, &copy.Options{DestinationCtx: sys, SourceCtx: sys}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		img, err := dest.NewImage(t.Context(), sys)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if config, err := img.OCIConfig(t.Context()); err != nil || !slices.Equal(config.RootFS.DiffIDs, want.DiffIDs) || img.ConfigInfo().Digest != want.ConfigDigest {
			t.Errorf("%s: %v, %+v", name, err, config)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
	img, err := s.Resolve(t.Context(), "localhost/copied:1", nil)
	if err != nil || img.ID != want.ImageID {
		t.Errorf("%v", err)
	}
	// It is read only.
	ref, err := commit.Reference(s, c.ID, commit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ref.NewImageDestination(t.Context(), nil); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
	if err := ref.DeleteImage(t.Context(), nil); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
}

// E6: that nothing had changed is remembered, too: the second time an empty layer is hashed only.
func TestEmptyLayerIsRemembered(t *testing.T) {
	s := newStore(t)
	base, _ := into(t, s, twoLayers(t, s), commit.Options{})
	c := container(t, s, base)
	ref := layoutAt(t, filepath.Join(t.TempDir(), "oci"), "t")
	var sent int64
	o := commit.Options{Created: &day, Progress: func(e commit.Event) {
		if e.Place != "" && e.Step == commit.StepLayers && e.Layer == "" {
			sent += e.Bytes
		}
	}}
	var made []digest.Digest
	for range 2 {
		sent = 0
		r, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{ref}, o, commit.CopyOptions{Compression: layerdiff.Gzip, NoSync: true})
		if err != nil || !r.Layer.Empty {
			t.Fatalf("%+v, %v", r, err)
		}
		made = append(made, r.ManifestDigest)
	}
	if sent != 0 || made[0] != made[1] {
		t.Errorf("%d bytes the second time, manifests %v", sent, made)
	}
}
