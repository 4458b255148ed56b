package commit_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containers/image/v5/copy"
	dockerarchive "github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

func TestCommitAndBuildUpon(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) {
		write(t, root, "etc/one", "1")
		write(t, root, "etc/two", "2")
	})
	base, r := into(t, s, c, commit.Options{Names: []string{"base"}, CreatedBy: "first"})
	if !slices.Equal(base.Names, []string{"localhost/base:latest"}) || r.Layer.Empty || len(r.DiffIDs) != 1 {
		t.Fatalf("image %+v, result %+v", base, r)
	}

	c2 := container(t, s, base)
	edit(t, c2, func(root string) {
		write(t, root, "etc/one", "")
		write(t, root, "usr/three", "3")
	})
	top, r2 := into(t, s, c2, commit.Options{Names: []string{"top:v1"}, CreatedBy: "second", Message: "said", Author: "somebody"})
	if len(r2.DiffIDs) != 2 || r2.DiffIDs[0] != r.DiffIDs[0] {
		t.Fatalf("diffIDs %v on %v", r2.DiffIDs, r.DiffIDs)
	}
	edit(t, container(t, s, top), func(root string) {
		if _, err := os.Lstat(filepath.Join(root, "etc/one")); !os.IsNotExist(err) {
			t.Error("a deleted file is back:", err)
		}
		for name, want := range map[string]string{"etc/two": "2", "usr/three": "3"} {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	})

	var config ispec.Image
	data, err := top.Config(t.Context())
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(config.History) != 2 || config.History[0].CreatedBy != "first" || config.History[1].CreatedBy != "second" ||
		config.History[1].Comment != "said" || config.Author != "somebody" || !config.Created.Equal(day) {
		t.Errorf("config %s", data)
	}
	m, _, err := top.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	view, err := convert.ParseManifest(m)
	if err != nil || view.Annotations[ispec.AnnotationBaseImageName] == "" || view.Annotations[ispec.AnnotationBaseImageDigest] != base.Digest.String() {
		t.Errorf("manifest %s, %v", m, err)
	}
}

func TestNothingChangedMakesNoLayer(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	base, _ := into(t, s, c, commit.Options{})
	before := layers(t, s)
	c = container(t, s, base)
	edit(t, c, func(root string) {
		if _, err := os.ReadFile(filepath.Join(root, "f")); err != nil {
			t.Error(err)
		}
	})
	img, r := into(t, s, c, commit.Options{CreatedBy: "looked"})
	if !r.Layer.Empty || len(r.DiffIDs) != 1 || img.TopLayer != base.TopLayer || img.ID == base.ID {
		t.Errorf("result %+v", r)
	}
	if now := layers(t, s); now != before+1 { // the container's own
		t.Errorf("%d layers, %d before", now, before)
	}
	data, err := img.Config(t.Context())
	if err != nil || strings.Count(string(data), `"empty_layer":true`) != 1 {
		t.Errorf("config %s, %v", data, err)
	}
}

func TestRemoveTakesTheFilesAlong(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "big", strings.Repeat("x", 1<<20)) })
	stack, err := c.Stack(t.Context(), store.StackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(stack.Upper, "big"))
	if err != nil {
		t.Fatal(err)
	}
	img, r := into(t, s, c, commit.Options{Remove: true})
	if _, err := s.Container(t.Context(), c.ID); kimg.ClassOf(err) != kimg.ErrNotFound || !r.Removed {
		t.Error("the container is still there:", err)
	}
	after, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(stack.Upper)), img.TopLayer, "diff", "big"))
	if err != nil || !os.SameFile(before, after) {
		t.Error("the file was copied:", err)
	}
}

func TestRemoveOfMountedCopies(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	root, err := c.Mount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, "f", "x")
	held, err := os.OpenFile(filepath.Join(root, "f"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	img, _ := into(t, s, c, commit.Options{Remove: true})
	if _, err := s.Container(t.Context(), c.ID); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Error("the container is still there:", err)
	}
	if _, err := held.WriteString("late"); err != nil {
		t.Error(err)
	}
	held.Close()
	edit(t, container(t, s, img), func(root string) {
		if got, err := os.ReadFile(filepath.Join(root, "f")); err != nil || string(got) != "x" {
			t.Errorf("a write after the commit is in the image: %q, %v", got, err)
		}
	})
}

func TestBothFormatsAreOneImage(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	first, a := into(t, s, c, commit.Options{Names: []string{"a"}})
	second, b := into(t, s, c, commit.Options{Names: []string{"b"}, Format: convert.DockerV2S2})
	if first.ID != second.ID || a.ManifestDigest == b.ManifestDigest {
		t.Fatalf("%+v and %+v", a, b)
	}
	for _, r := range []commit.Result{a, b} {
		if _, _, err := second.ManifestByDigest(t.Context(), r.ManifestDigest); err != nil {
			t.Error(err)
		}
	}
}

func TestOptionsReachTheDocuments(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	state, err := copydata.Load(s.Dir(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	err = state.Update(func(set *copydata.Settings) error {
		set.Annotations = map[string]string{"keep": "1", "drop": "2"}
		set.Image.Config.Healthcheck = &docker.Healthcheck{Test: []string{"CMD", "true"}}
		return nil
	})
	if err == nil {
		err = state.Save(s.Dir())
	}
	if err != nil {
		t.Fatal(err)
	}
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	img, _ := into(t, s, c, commit.Options{
		OmitHistory: true, Annotations: map[string]string{"new": "3"}, UnsetAnnotations: []string{"drop"},
		Change: func(i *docker.Image) error { i.Config.Cmd = docker.Strings{"run"}; return nil },
	})
	m, _, err := img.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	view, err := convert.ParseManifest(m)
	if err != nil || len(view.Annotations) != 2 || view.Annotations["keep"] != "1" || view.Annotations["new"] != "3" {
		t.Errorf("annotations %v, %v", view.Annotations, err)
	}
	data, err := img.Config(t.Context())
	if err != nil || strings.Contains(string(data), "history") || !strings.Contains(string(data), `"Cmd":["run"]`) ||
		!strings.Contains(string(data), "Healthcheck") {
		t.Errorf("config %s, %v", data, err)
	}
	if again, err := copydata.Load(s.Dir(), c.ID); err != nil || len(again.Config().Docker().Config.Cmd) != 0 {
		t.Error("the change is in the container's state:", err)
	}
}

func TestCopyToLayout(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", strings.Repeat("hello ", 10000)) })
	base, _ := into(t, s, c, commit.Options{Names: []string{"base"}})
	c = container(t, s, base)
	edit(t, c, func(root string) { write(t, root, "g", "x") })
	dir := filepath.Join(t.TempDir(), "layout")
	var sizes []int64
	for _, compression := range []layerdiff.Compression{layerdiff.NoCompression, layerdiff.Gzip} {
		ref, err := layout.NewReference(dir, "t"+string(compression))
		if err != nil {
			t.Fatal(err)
		}
		r, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{ref}, commit.Options{Created: &day}, commit.CopyOptions{Compression: compression, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		src, err := ref.NewImageSource(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		m, mime, err := src.GetManifest(t.Context(), nil)
		if err != nil || mime != ispec.MediaTypeImageManifest || len(r.DiffIDs) != 2 {
			t.Fatal(mime, err)
		}
		if d, _ := manifest.Digest(m); d != r.ManifestDigest {
			t.Errorf("manifest %s, reported %s", d, r.ManifestDigest)
		}
		view, err := convert.ParseManifest(m)
		if err != nil {
			t.Fatal(err)
		}
		if gz := strings.HasSuffix(view.Layers[0].MediaType, "gzip"); gz != (compression == layerdiff.Gzip) {
			t.Errorf("layer type %s", view.Layers[0].MediaType)
		}
		sizes = append(sizes, view.Layers[0].Size)
	}
	if sizes[1] >= sizes[0]/4 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestCopyRefusesAndTakesBack(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	dir := t.TempDir()
	busy := filepath.Join(dir, "busy")
	write(t, busy, "something", "else")
	file := filepath.Join(dir, "file.tar")
	write(t, dir, "file.tar", "else")
	inBusy, _ := layout.NewReference(busy, "t")
	onFile, _ := dockerarchive.NewReference(file, nil)
	for _, c2 := range []struct {
		name string
		run  func() error
		want kimg.Class
	}{
		{"not a layout", func() error {
			_, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{inBusy}, commit.Options{}, commit.CopyOptions{})
			return err
		}, kimg.ErrExists},
		{"file", func() error {
			_, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{onFile}, commit.Options{}, commit.CopyOptions{})
			return err
		}, kimg.ErrExists},
		{"format", func() error {
			_, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{inBusy}, commit.Options{Format: convert.DockerV2S2}, commit.CopyOptions{})
			return err
		}, kimg.ErrInvalid},
		{"zstd", func() error {
			_, err := commit.Copy(t.Context(), s, c.ID, []types.ImageReference{onFile}, commit.Options{}, commit.CopyOptions{Compression: layerdiff.Zstd})
			return err
		}, kimg.ErrInvalid},
		{"zstd in a Docker image", func() error {
			_, err := commit.Reference(s, c.ID, commit.Options{Format: convert.DockerV2S2, Compression: layerdiff.Zstd})
			return err
		}, kimg.ErrInvalid},
		{"level", func() error {
			_, err := commit.Reference(s, c.ID, commit.Options{Compression: layerdiff.Gzip, Level: 10})
			return err
		}, kimg.ErrInvalid},
		{"zstd:chunked", func() error {
			_, err := commit.Reference(s, c.ID, commit.Options{Compression: layerdiff.ZstdChunked})
			return err
		}, kimg.ErrUnsupported},
		{"v2s1", func() error {
			_, err := commit.Container(t.Context(), s, c.ID, commit.Options{Format: convert.DockerV2S1})
			return err
		}, kimg.ErrUnsupported},
		{"unknown container", func() error {
			_, err := commit.Container(t.Context(), s, "nobody", commit.Options{})
			return err
		}, kimg.ErrNotFound},
		{"bad name", func() error {
			_, err := commit.Container(t.Context(), s, c.ID, commit.Options{Names: []string{"UPPER:::"}})
			return err
		}, kimg.ErrInvalid},
	} {
		if err := c2.run(); kimg.ClassOf(err) != c2.want {
			t.Errorf("%s: %v is not %s", c2.name, err, c2.want)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if data, _ := os.ReadFile(file); string(data) != "else" {
		t.Errorf("the file is now %q", data)
	}
}

func TestReferenceToDockerArchive(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	src, err := commit.Reference(s, c.ID, commit.Options{Format: convert.DockerV2S2, Created: &day})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	dest, err := dockerarchive.NewReference(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copy.Image(t.Context(), policy, dest, src, nil); err != nil {
		t.Fatal(err)
	}
	img, err := dest.NewImage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	config, err := img.ConfigBlob(t.Context())
	_, r := into(t, s, c, commit.Options{Format: convert.DockerV2S2})
	if err != nil || !bytes.Contains(config, []byte(r.DiffIDs[0])) {
		t.Errorf("config %s, %v", config, err)
	}
}
