package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// A tool lets kimg work on a store that it has opened itself, and goes on using it.
func ExampleWrap() {
	if err := wrapped(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// box from scratch, mounted: false
	// the tool finds it too: [box]
}

func wrapped(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	own, err := storage.GetStore(storage.StoreOptions{
		GraphRoot: filepath.Join(dir, "g"), RunRoot: filepath.Join(dir, "r"), GraphDriverName: "overlay",
	})
	if err != nil {
		return err
	}
	defer func() { _, _ = own.Shutdown(true) }() // the tool's business, not kimg's

	st := store.Wrap(own)
	made, err := st.NewContainer(ctx, nil, store.ContainerOptions{Name: "box"})
	if err != nil {
		return err
	}
	err = made.WithMount(ctx, func(root string) error {
		return os.WriteFile(filepath.Join(root, "hello"), []byte("hello\n"), 0o644)
	})
	if err != nil {
		return err
	}
	c, err := st.Container(ctx, "box") // a name, an ID, or the beginning of one
	if err != nil {
		return err
	}
	path, _, err := c.Mounted()
	if err != nil {
		return err
	}
	fmt.Printf("%s from scratch, mounted: %t\n", c.Name, path != "")
	record, err := own.Container(c.ID)
	if err != nil {
		return err
	}
	fmt.Println("the tool finds it too:", record.Names)
	return c.Remove(ctx)
}
