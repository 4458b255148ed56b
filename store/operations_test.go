package store_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// operations are changes a child process makes, each in one call, on a store prepare has set up.
var operations = map[string]func(ctx context.Context, s *store.Store) error{
	"open":  func(context.Context, *store.Store) error { return nil },
	"layer": func(ctx context.Context, s *store.Store) error { return addLayer(ctx, s, "", "second") },
	"import": func(ctx context.Context, s *store.Store) error {
		return importImage(ctx, s, "localhost/base:latest", "one", "two", "three") // the name moves
	},
	"from": func(ctx context.Context, s *store.Store) error {
		img, err := s.Resolve(ctx, "base", nil)
		if err != nil {
			return err
		}
		_, err = s.NewContainer(ctx, img, store.ContainerOptions{Name: "made"})
		return err
	},
	"rm": func(ctx context.Context, s *store.Store) error {
		c, err := s.Container(ctx, "old")
		if err != nil {
			return err
		}
		return c.Remove(ctx)
	},
	"rmi": func(ctx context.Context, s *store.Store) error {
		_, err := s.DeleteImage(ctx, "unused", false)
		return err
	},
	"tag": func(ctx context.Context, s *store.Store) error { _, err := s.Tag(ctx, "unused", "base"); return err },
	"lease": func(ctx context.Context, s *store.Store) error {
		_, err := s.Lease(ctx, store.LeaseOptions{Image: "unused", Detached: true})
		return err
	},
	"list":         importList,
	"manifest":     func(ctx context.Context, s *store.Store) error { return listImage(ctx, s, "listed", "unused") },
	"step from":    buildStep, // each is struck in that part of it
	"step new":     buildStep,
	"step commit":  buildStep,
	"step image":   buildStep,
	"step end":     buildStep,
	"step dropped": buildStep,
	"commit links": func(ctx context.Context, s *store.Store) error { return commitContainer(ctx, s, true) },
	"commit copy":  func(ctx context.Context, s *store.Store) error { return commitContainer(ctx, s, false) },
}

// child is main of a re-executed test binary.
func child(op string) {
	dir := os.Getenv(envRoot)
	s, err := store.Open(store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: cmp.Or(os.Getenv(envDriver), "overlay"), DriverOptions: []string{}, NoSync: true})
	run := operations[op]
	if run == nil {
		run = helpers[op]
	}
	if err == nil {
		err = run(context.Background(), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func addLayer(ctx context.Context, s *store.Store, parent, name string) error {
	_, err := s.AddLayer(ctx, parent, store.TarSource(bytes.NewReader(makeTar(nil, file{name: name, content: name}))))
	return err
}

// buildStep makes a layer in a mounted one, and an image of it or, to be dropped, none. It is struck in one part of that.
func buildStep(ctx context.Context, s *store.Store) (err error) {
	what, struck := os.Getenv("KIMG_FAILPOINT"), os.Getenv(envChild)
	part := func(name string) {
		now := ""
		if struck == "step "+name {
			now = what
		}
		os.Setenv("KIMG_FAILPOINT", now)
	}
	part("from")
	base, err := commit.From(ctx, s, "unused", commit.FromOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Release(ctx)) }()
	part("new")
	rw, err := base.NewRWLayer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rw.Release(ctx)) }()
	path, day := filepath.Join(rw.Root(), "built"), time.Unix(1700000000, 0)
	if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, day, day)); err != nil {
		return err
	}
	part("commit")
	next, err := rw.Commit(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, next.Release(ctx)) }()
	if part("dropped"); struck == "step dropped" {
		return nil
	}
	part("image")
	config := record(nil, "built", "", nil, next.DiffIDs()...).Config
	_, err = commit.CreateImage(ctx, s, config, "unused", next, commit.Options{Names: []string{"base", "built"}})
	if err == nil {
		part("end")
	}
	return err
}

// importImage puts an image of several layers in one change.
func importImage(ctx context.Context, s *store.Store, name string, layers ...string) error {
	return s.Change(ctx, "import", func(ctx context.Context, tx *store.Tx) error {
		var diffIDs []digest.Digest
		parent := ""
		for _, l := range layers {
			staged, err := tx.StageLayer(ctx, parent, store.TarSource(bytes.NewReader(makeTar(nil, file{name: l, content: l}))))
			if err != nil {
				return err
			}
			parent, diffIDs = staged.ID, append(diffIDs, staged.DiffID)
		}
		tx.PutImage(record(nil, "import", parent, []string{name}, diffIDs...))
		return nil
	})
}

// importList puts an index with one image, whose layer keeps its blob.
func importList(ctx context.Context, s *store.Store) error {
	return s.Change(ctx, "import", func(ctx context.Context, tx *store.Tx) error {
		tar := makeTar(nil, file{name: "listed", content: "x"})
		spool, err := tx.SpoolBlob()
		if err != nil {
			return err
		}
		if _, err := spool.Write(tar); err != nil {
			return err
		}
		l, err := tx.StageLayer(ctx, "", store.TarSource(bytes.NewReader(tar)))
		if err != nil {
			return err
		}
		if err := tx.KeepBlob(l, spool, digest.FromBytes(tar)); err != nil {
			return err
		}
		img := record(nil, "listed", l.ID, nil, l.DiffID)
		tx.PutImage(img)
		d := digest.FromBytes(img.Manifest)
		index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, img.ManifestType, d, len(img.Manifest))
		return tx.PutList(ctx, store.ListRecord{Names: []string{"base", "list"}, Index: index, Instances: map[digest.Digest]string{d: img.ID()}})
	})
}

// commitContainer turns the container "old" into an image and removes it, in the order of a commit that shares files with
// the container, or that has copied them.
func commitContainer(ctx context.Context, s *store.Store, links bool) error {
	c, err := s.Container(ctx, "old")
	if err != nil {
		return err
	}
	base, err := c.Base(ctx)
	if err != nil {
		return err
	}
	return s.Change(ctx, "commit", func(ctx context.Context, tx *store.Tx) error {
		below, err := base.Layers(ctx)
		if err != nil {
			return err
		}
		l, err := tx.StageLayer(ctx, base.TopLayer, store.TarSource(bytes.NewReader(makeTar(nil, file{name: "committed", content: "x"}))))
		if err != nil {
			return err
		}
		if links {
			tx.RemoveContainer(c.ID)
		}
		tx.PutImage(record(nil, "commit", l.ID, []string{"base", "committed"}, below[0].DiffID, l.DiffID))
		if !links {
			tx.RemoveContainer(c.ID)
		}
		return nil
	})
}

// prepare fills a store: an image with a container, another without.
func prepare(t testing.TB) *testStore { return prepareOf(t, "") }

func prepareOf(t testing.TB, driver string) *testStore {
	ts := newStoreOf(t, driver)
	base := ts.addImage(t, "base-file", "base")
	ts.addImage(t, "unused-file", "unused")
	if _, err := ts.NewContainer(t.Context(), base, store.ContainerOptions{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	return ts
}

// prepareFor makes a list as well, for the operation that changes one.
func prepareFor(t testing.TB, op, driver string) *testStore {
	ts := prepareOf(t, driver)
	if op == "manifest" {
		base, err := ts.Resolve(t.Context(), "base", nil)
		if err != nil {
			t.Fatal(err)
		}
		index, data := addTo(t, nil, base)
		if _, err := ts.PutList(t.Context(), store.ListRecord{Names: []string{"listed"}, Index: index, Instances: data}); err != nil {
			t.Fatal(err)
		}
	}
	return ts
}
