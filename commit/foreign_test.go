package commit_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// TestCommitOfForeignContainers makes images of containers that other tools made, and says what is not known.
func TestCommitOfForeignContainers(t *testing.T) {
	s := newStore(t)
	base, _ := into(t, s, container(t, s, nil), commit.Options{Change: func(img *docker.Image) error { img.Config.Cmd = []string{"c"}; return nil }})
	rec, err := s.Storage().CreateContainer("", []string{"made"}, base.ID, "", `{"image-name":"base","image-id":"x","name":"made","created-at":1}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Container(t.Context(), rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, c, func(root string) { write(t, root, "f", "1") })
	img, r := into(t, s, c, commit.Options{})
	state, err := s.ImageCopyData(t.Context(), img.ID)
	if err != nil || state.Config().Docker().Config.Cmd[0] != "c" || r.Layer.Empty {
		t.Errorf("%v %+v", err, r)
	}
	if len(r.Report) != 1 || r.Report[0].Kind != convert.Warning {
		t.Errorf("%v", r.Report)
	}
	// Running: only by force.
	dir, err := s.Storage().ContainerRunDirectory(c.ID)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "pidfile"), fmt.Append(nil, os.Getpid()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := commit.Container(t.Context(), s, c.ID, commit.Options{}); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("of a running container: %v", err)
	}
	into(t, s, c, commit.Options{Force: true})
	// It cannot be frozen: this process is in no cgroup of the container's.
	var log bytes.Buffer
	into(t, s, c, commit.Options{Pause: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), "the container is not paused") {
		t.Errorf("no warning: %s", &log)
	}
	into(t, s, c, commit.Options{Pause: true})
	if _, err := commit.Container(t.Context(), s, c.ID, commit.Options{Pause: true, Remove: true}); !errors.Is(err, kimg.ErrInvalid) {
		t.Errorf("paused and removed: %v", err)
	}
}

// TestWeaknessMakeImageRef: a name that cannot be parsed is an error, never no name; and who wants no history says so.
func TestWeaknessMakeImageRef(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	for _, bad := range []string{"UPPER", "a b", "a@sha256:x", "-"} {
		if _, err := commit.Reference(s, c.ID, commit.Options{Names: []string{bad}}); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("reference named %q: %v", bad, err)
		}
		if _, err := commit.Container(t.Context(), s, c.ID, commit.Options{Names: []string{bad}}); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("image named %q: %v", bad, err)
		}
	}
	for _, omit := range []bool{false, true} {
		ref, err := commit.Reference(s, c.ID, commit.Options{Names: []string{"box"}, OmitHistory: omit, CreatedBy: "me"})
		if err != nil || ref.DockerReference().String() != "localhost/box:latest" {
			t.Fatal(err)
		}
		img, err := ref.NewImage(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.OCIConfig(t.Context())
		if err != nil || (len(config.History) == 0) != omit || !omit && config.History[0].CreatedBy != "me" {
			t.Errorf("%v %+v", err, config.History)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAnnotationsOfLayers keeps what is said of the base image's layers and of the new one.
func TestAnnotationsOfLayers(t *testing.T) {
	s := newStore(t)
	annotate := func(c *store.Container, key string) {
		edit(t, c, func(root string) { write(t, root, key, "1") })
		state, _, err := s.CopyData(t.Context(), c.ID)
		if err == nil {
			err = state.Update(func(s *copydata.Settings) error {
				s.LayerAnnotations[key], s.LayerAnnotations["io.github.containers.zstd-chunked.x"] = "1", "1"
				return nil
			})
		}
		if err := errors.Join(err, state.Save(s.Dir())); err != nil {
			t.Fatal(err)
		}
	}
	c := container(t, s, nil)
	annotate(c, "one")
	base, _ := into(t, s, c, commit.Options{})
	c = container(t, s, base)
	annotate(c, "two")
	top, _ := into(t, s, c, commit.Options{})
	data, _, err := top.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := convert.ParseManifest(data)
	if err != nil || len(m.Layers[0].Annotations) != 1 || m.Layers[0].Annotations["one"] != "1" || m.Layers[1].Annotations["two"] != "1" {
		t.Errorf("%v %s", err, data)
	}
}
