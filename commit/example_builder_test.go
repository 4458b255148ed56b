package commit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// A tool builds an image step by step, as a Dockerfile says it: each step writes to a layer on top of the one before, and the tool's own
// configuration becomes the image's.
func ExampleFrom() {
	if err := build(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// 2 steps, the second changed nothing: true
	// localhost/built:latest has 1 layer and 2 history entries
}

func build(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(store.Options{
		Root: filepath.Join(dir, "g"), RunRoot: filepath.Join(dir, "r"), Driver: "overlay", DriverOptions: []string{}, NoSync: true,
	})
	if err != nil {
		return err
	}
	defer func() { _, _ = st.Storage().Shutdown(true) }()

	on, err := commit.From(ctx, st, "scratch", commit.FromOptions{}) // or an image; FromOptions.Pull fetches what is missing
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, on.Release(ctx)) }() // whichever layer is the newest by then
	config := ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ispec.RootFS{Type: "layers"}}
	for _, run := range []func(root string) error{
		func(root string) error { return os.WriteFile(filepath.Join(root, "hello"), []byte("hello\n"), 0o644) },
		func(string) error { return nil },
	} {
		next, err := oneStep(ctx, on, run)
		if err != nil {
			return err
		}
		err = on.Release(ctx) // what stands on it keeps it
		on = next
		if err != nil {
			return err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, on.DiffID())
		config.History = append(config.History, ispec.History{CreatedBy: "run"})
	}
	fmt.Printf("%d steps, the second changed nothing: %t\n", len(config.History), on.Empty())

	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	made, err := commit.CreateImage(ctx, st, data, "", on, commit.Options{Names: []string{"built"}})
	if err != nil {
		return err
	}
	img, err := st.Resolve(ctx, made.ImageID, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s has %d layer and %d history entries\n", img.Names[0], len(made.DiffIDs), len(config.History))
	return nil
}

// oneStep runs one step: a layer to write to, and a layer of what was written.
func oneStep(ctx context.Context, on *commit.ROLayer, run func(root string) error) (_ *commit.ROLayer, err error) {
	rw, err := on.NewRWLayer(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rw.Release(ctx)) }()
	if err := run(rw.Root()); err != nil {
		return nil, err
	}
	return rw.Commit(ctx)
}
