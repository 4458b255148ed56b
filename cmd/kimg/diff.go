package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// diffOptions are the flags of kimg diff.
type diffOptions struct {
	outFile
	tar bool
}

func newDiff(a *app) *cobra.Command {
	o := &diffOptions{outFile: outFile{app: a}}
	cmd := &cobra.Command{
		Use:   "diff [flags] CTR|IMAGE|LAYER [OTHER]",
		Short: "List what a container, an image's newest layer or a layer changed, or how two trees differ",
		Long: `List what a container, the newest layer of an image or a layer changed: A for added, C for changed, D for deleted. With two of
them, list what has to change in the whole of the first to get the whole of the second. With --tar the changes are a layer, an
uncompressed tar whose bytes depend on the changes only. A layer is named by its id or its diffID.`,
		Example: "  kimg diff CTR\n  kimg diff --json CTR\n  kimg diff --tar -o layer.tar CTR\n  kimg diff IMAGE:1 IMAGE:2",
		Args:    args(1, 2),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	cmd.Flags().BoolVar(&o.tar, "tar", false, "write the changes as a tar layer")
	o.register(cmd.Flags(), "tar")
	return cmd
}

func (o *diffOptions) check([]string) error {
	if o.file != "" && !o.tar {
		return usagef("--output", "needs --tar")
	}
	if !o.tar {
		return nil
	}
	return o.checkTerminal()
}

func (o *diffOptions) run(ctx context.Context, st *store.Store, args []string) error {
	source, err := o.open(ctx, st, args)
	if err != nil {
		return err
	}
	defer source.Close()
	if o.tar {
		return o.writeTar(func(w io.Writer) (layerdiff.Blob, error) {
			return layerdiff.Write(ctx, w, source.Stack, o.options(source))
		})
	}
	list := []changeJSON{} // whole, before anything is printed: a list that breaks off would be taken for all of it
	for c, err := range layerdiff.Changes(ctx, source.Stack, o.options(source)) {
		if err != nil {
			return err
		}
		list = append(list, newChangeJSON(c))
	}
	if o.flags.json {
		return o.printJSON(map[string]any{"changes": list})
	}
	for _, c := range list {
		o.println(c.Kind + " " + c.Path)
	}
	return nil
}

// open opens what one thing changed, or how two differ.
func (o *diffOptions) open(ctx context.Context, st *store.Store, args []string) (*store.Stack, error) {
	first, err := o.find(ctx, st, args[0])
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return st.Stack(ctx, first, store.StackOptions{})
	}
	second, err := o.find(ctx, st, args[1])
	if err != nil {
		return nil, err
	}
	return st.Compare(ctx, first, second, store.StackOptions{})
}

func (o *diffOptions) options(s *store.Stack) layerdiff.Options {
	return layerdiff.Options{UIDs: s.UIDs, GIDs: s.GIDs, Jobs: o.flags.jobs, Logger: o.log}
}

// find looks for a container first, then for an image, then for a layer.
func (o *diffOptions) find(ctx context.Context, st *store.Store, ref string) (store.Readable, error) {
	c, err := container(ctx, st, ref)
	if kimg.ClassOf(err) != kimg.ErrNotFound {
		return c, err
	}
	img, err := image(ctx, st, ref)
	if kimg.ClassOf(err) != kimg.ErrNotFound {
		return img, err
	}
	l, err := st.Layer(ctx, ref)
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		err = kimg.Errorf(kimg.ErrNotFound, ref, "neither a container nor an image nor a layer")
	}
	return l, err
}

// changeJSON is one change in results.
type changeJSON struct {
	Path string `json:"path"`
	Kind string `json:"kind"` // A, C or D
	Type string `json:"type"` // as find -type has them, h for another name of a file
	Size int64  `json:"size"`
	UID  uint32 `json:"uid"` // as the container sees it
	GID  uint32 `json:"gid"`
	Mode string `json:"mode"` // octal
	Link string `json:"link,omitempty"`
}

func newChangeJSON(c layerdiff.Change) changeJSON {
	return changeJSON{
		Path: c.Path, Kind: c.Kind.String(), Type: c.Type.String(), Size: c.Size, UID: c.UID, GID: c.GID,
		Mode: fmt.Sprintf("%04o", c.Mode), Link: c.Link,
	}
}

// writeTar writes a tar, and says with --json what it wrote to a file.
func (o *diffOptions) writeTar(write func(io.Writer) (layerdiff.Blob, error)) error {
	var blob layerdiff.Blob
	err := o.write(func(w io.Writer) (err error) {
		blob, err = write(w)
		return err
	})
	if err != nil || o.toStdout() || !o.flags.json {
		return err
	}
	return o.printJSON(newLayerJSON(blob))
}
