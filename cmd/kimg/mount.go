package main

import (
	"context"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/userns"
)

// rootVariable tells a program run by kimg mount where the container's tree is.
const rootVariable = "KIMG_ROOT"

// mountOptions are the flags of kimg mount.
type mountOptions struct {
	*app
	image bool
	dash  int // number of arguments before "--", -1 without
}

func newMount(a *app) *cobra.Command {
	o := &mountOptions{app: a}
	cmd := &cobra.Command{
		Use:   "mount [flags] [CTR… | CTR -- CMD [ARG…]]",
		Short: "Mount containers and print where, or run a command on a mounted tree",
		Long: `Mount containers and print where. Without arguments, list what is mounted.

The mount stays until kimg umount, also for a user without privileges: the path that is printed is one that the same user
reaches from any shell.

With -- CMD the command runs while the container is mounted, with the path of its tree in $KIMG_ROOT and with the
container's user and group ids, and its exit status is passed on. Then the container is unmounted.

With --image an image is mounted, read-only.`,
		Example: "  root=$(kimg mount CTR)\n  kimg mount CTR -- sh -c 'cp app \"$KIMG_ROOT/usr/bin/\"'\n  kimg mount --image alpine",
		Args: func(cmd *cobra.Command, list []string) error {
			o.dash = cmd.ArgsLenAtDash()
			return nil
		},
	}
	cmd.RunE = a.withStore(keptNamespace, o.check, o.run)
	cmd.Flags().BoolVar(&o.image, "image", false, "mount images, read-only")
	return cmd
}

func (o *mountOptions) check(args []string) error {
	switch {
	case o.dash < 0:
		return nil
	case o.dash != 1:
		return usagef("mount", "one container before --, not %d", o.dash)
	case len(args) == 1:
		return usagef("mount", "no command after --")
	}
	return nil
}

// mountJSON is one mounted tree.
type mountJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Path string `json:"path"` // as the same user reaches it from outside kimg's namespace
	path string
}

func (o *mountOptions) run(ctx context.Context, st *store.Store, args []string) error {
	switch {
	case o.dash >= 0:
		return o.runIn(ctx, st, args[0], args[1:])
	case len(args) == 0:
		return o.list(ctx, st)
	}
	var undo cleanup.Stack
	var mounts []mountJSON
	for _, arg := range args {
		m, err := o.mount(ctx, st, arg, &undo)
		if err != nil {
			return joined(err, undo.Run(ctx))
		}
		mounts = append(mounts, m)
	}
	return o.print(st, mounts, len(mounts) == 1)
}

// mount mounts one container or image.
func (o *mountOptions) mount(ctx context.Context, st *store.Store, ref string, undo *cleanup.Stack) (mountJSON, error) {
	if o.image {
		img, err := image(ctx, st, ref)
		if err != nil {
			return mountJSON{}, err
		}
		path, err := img.Mount(ctx)
		if err != nil {
			return mountJSON{}, err
		}
		undo.Add(img.Unmount)
		return mountJSON{ID: img.ID, Name: ref, path: path}, nil
	}
	c, err := container(ctx, st, ref)
	if err != nil {
		return mountJSON{}, err
	}
	path, err := c.Mount(ctx)
	if err != nil {
		return mountJSON{}, err
	}
	undo.Add(c.Unmount)
	return mountJSON{ID: c.ID, Name: c.Name, path: path}, nil
}

// list prints what is mounted.
func (o *mountOptions) list(ctx context.Context, st *store.Store) error {
	list, err := st.Containers(ctx)
	if err != nil {
		return err
	}
	mounts := []mountJSON{}
	for _, c := range list {
		if path, n, err := c.Mounted(); err == nil && n > 0 {
			mounts = append(mounts, mountJSON{ID: c.ID, Name: c.Name, path: path})
		}
	}
	return o.print(st, mounts, false)
}

func (o *mountOptions) print(st *store.Store, mounts []mountJSON, bare bool) error {
	for i := range mounts {
		path, err := outside(st, mounts[i].path)
		if err != nil {
			return kimg.Wrap(mounts[i].Name, err)
		}
		mounts[i].Path = path
	}
	if o.flags.json {
		return o.printJSON(map[string]any{"mounts": mounts})
	}
	for _, m := range mounts {
		if bare {
			o.println(m.Path)
		} else {
			o.println(m.Name + " " + m.Path)
		}
	}
	return nil
}

// runIn runs a command while a container is mounted.
func (o *mountOptions) runIn(ctx context.Context, st *store.Store, ref string, command []string) error {
	c, err := container(ctx, st, ref)
	if err != nil {
		return err
	}
	uids, gids := idMap(c.UIDMap), idMap(c.GIDMap)
	return c.WithMount(ctx, func(root string) error {
		if !uids.Identity() || !gids.Identity() {
			return o.runMapped(root, uids, gids, command)
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), rootVariable+"="+root)
		return o.runChild(cmd)
	})
}

// outside returns where the caller finds what is mounted. A driver that keeps whole trees mounts nothing: the tree is where
// it is, also when the namespace has ended.
func outside(st *store.Store, path string) (string, error) {
	if st.Info().Driver == "vfs" {
		return path, nil
	}
	return userns.Outside(path)
}
