// Command linked is a small podman-like tool that links kimg: it opens a storage.Store of its own, keeps it for itself, and
// lets kimg work on it. It makes a container, writes into it, edits its state, commits it, and copies the same image to a
// docker-archive.
//
// usage: linked GRAPHROOT RUNROOT ARCHIVE
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/signature"
	"github.com/containers/storage"
	"github.com/containers/storage/pkg/reexec"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

func main() {
	if reexec.Init() { // containers/storage unpacks layers in a child of this program
		return
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, kimg.Line(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, root, runRoot, file string) error {
	own, err := storage.GetStore(storage.StoreOptions{GraphRoot: root, RunRoot: runRoot, GraphDriverName: "overlay"})
	if err != nil {
		return err
	}
	st := store.Wrap(own)

	c, err := st.NewContainer(ctx, nil, store.ContainerOptions{Name: "work"})
	if err != nil {
		return err
	}
	err = c.WithMount(ctx, func(root string) error {
		return os.WriteFile(root+"/hello", []byte("from a program that links kimg\n"), 0o644)
	})
	if err != nil {
		return err
	}
	if err := describe(st, c.ID); err != nil {
		return err
	}
	r, err := commit.Container(ctx, st, c.ID, commit.Options{Names: []string{"linked"}, CreatedBy: "linked"})
	if err != nil {
		return err
	}
	fmt.Println(r.ImageID)
	if err := save(ctx, st, c.ID, file); err != nil {
		return err
	}
	// The store is still this program's: kimg has not shut it down, and knows what it added.
	if _, err := own.Image("localhost/linked:latest"); err != nil {
		return err
	}
	if err := own.DeleteContainer(c.ID); err != nil {
		return err
	}
	_, err = own.Shutdown(false)
	return err
}

// describe edits the container's state.
func describe(st *store.Store, id string) error {
	state, err := copydata.Load(st.Dir(), id)
	if err != nil {
		return err
	}
	err = state.Update(func(s *copydata.Settings) error {
		s.Image.Config.Cmd = []string{"cat", "/hello"}
		s.Image.Config.Labels = map[string]string{"made-by": "linked"}
		return nil
	})
	if err != nil {
		return err
	}
	return state.Save(st.Dir())
}

// save copies the container, as an image, to a docker-archive.
func save(ctx context.Context, st *store.Store, id, file string) error {
	src, err := commit.Reference(st, id, commit.Options{Format: convert.DockerV2S2})
	if err != nil {
		return err
	}
	name, err := reference.ParseNormalizedNamed("localhost/linked:latest")
	if err != nil {
		return err
	}
	dest, err := archive.NewReference(file, name.(reference.NamedTagged))
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return err
	}
	_, err = copy.Image(ctx, policy, dest, src, nil)
	return err
}
