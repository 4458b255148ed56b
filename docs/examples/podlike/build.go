package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/containers/storage"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// build makes a container, changes it, and lets it become an image here and at the destinations. The container goes,
// whatever happens.
func build(ctx context.Context, own storage.Store, j job) (err error) {
	st := store.Wrap(own)
	var base *store.Image // nil: from scratch
	if j.from != "" {
		if base, err = st.Resolve(ctx, j.from, nil); err != nil {
			return err
		}
	}
	c, err := st.NewContainer(ctx, base, store.ContainerOptions{ImageName: j.from})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()

	if err := c.WithMount(ctx, j.write); err != nil {
		return err
	}
	if err := describe(ctx, st, c.ID, j); err != nil {
		return err
	}
	if err := diff(ctx, c); err != nil {
		return err
	}
	now := time.Now() // the same in both roads: the image that is pushed is the one in the store
	o := commit.Options{Names: []string{j.name}, CreatedBy: "podlike", Created: &now}
	image, err := commit.Container(ctx, st, c.ID, o)
	if err != nil {
		return err
	}
	fmt.Println(image.ImageID)
	for _, dest := range j.dests {
		if err := push(ctx, st, c.ID, o, dest, j.insecure); err != nil {
			return fmt.Errorf("push to %s: %w", dest, err)
		}
	}
	return nil
}

// write puts the files into the mounted container. os.Root keeps links that the image brought from leading outside.
func (j job) write(root string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, f := range j.files {
		if err := tree.MkdirAll(path.Dir(f[0]), 0o755); err != nil {
			return err
		}
		if err := tree.WriteFile(f[0], []byte(f[1]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// describe edits the container's state, from which the image's configuration is made.
func describe(ctx context.Context, st *store.Store, id string, j job) error {
	state, _, err := st.CopyData(ctx, id)
	if err != nil {
		return err
	}
	err = state.Update(func(s *copydata.Settings) error {
		if len(j.files) > 0 {
			s.Image.Config.Cmd = []string{"cat", "/" + j.files[0][0]}
		}
		s.Annotations["org.opencontainers.image.title"] = j.name
		return nil
	})
	if err != nil {
		return err
	}
	return state.Save(st.Dir())
}

// diff prints what the container changed, as podman diff does. Nothing is mounted for that.
func diff(ctx context.Context, c *store.Container) error {
	stack, err := c.Stack(ctx, store.StackOptions{})
	if err != nil {
		return err
	}
	defer stack.Close()
	for change, err := range layerdiff.Changes(ctx, stack.Stack, layerdiff.Options{UIDs: stack.UIDs, GIDs: stack.GIDs}) {
		if err != nil {
			return err
		}
		fmt.Println(change.Kind, change.Path)
	}
	return nil
}
