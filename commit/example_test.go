package commit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/signature"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// A container's state is read and edited, and the image it would become is copied to a directory, as to any other
// transport.
func ExampleReference() {
	if err := example(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// PATH and X set; user nobody
	// the layout holds localhost/box:latest
}

func example(ctx context.Context) error {
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
	box, err := st.NewContainer(ctx, nil, store.ContainerOptions{Name: "box"}) // nil: from scratch
	if err != nil {
		return err
	}

	// The state of a container, ours or another tool's; the report says what of another tool's could not be taken over.
	state, _, err := st.CopyData(ctx, box.ID)
	if err != nil {
		return err
	}
	err = state.Update(func(s *copydata.Settings) error {
		s.Image.Config.Env = append(s.Image.Config.Env, "X=1")
		s.Image.Config.User = "nobody"
		return nil
	})
	if err != nil {
		return err
	}
	if err := state.Save(st.Dir()); err != nil { // class busy when somebody else saved first
		return err
	}

	// The state of an image, as a container of it would begin.
	made, err := commit.Container(ctx, st, box.ID, commit.Options{})
	if err != nil {
		return err
	}
	of, err := st.ImageCopyData(ctx, made.ImageID)
	if err != nil {
		return err
	}
	config := of.Config().OCI().Config
	fmt.Printf("PATH and %c set; user %s\n", config.Env[1][0], config.User)

	// The same image as a reference, for copy.Image.
	ref, err := commit.Reference(st, box.ID, commit.Options{Names: []string{"box"}})
	if err != nil {
		return err
	}
	to, err := layout.NewReference(filepath.Join(dir, "layout"), ref.DockerReference().String())
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		return err
	}
	defer func() { _ = policy.Destroy() }()
	if _, err := copy.Image(ctx, policy, to, ref, nil); err != nil {
		return err
	}
	fmt.Println("the layout holds", to.StringWithinTransport()[len(dir)+len("/layout:"):])
	return nil
}
