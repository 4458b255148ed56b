package main

import (
	"context"
	"strings"

	"github.com/containers/storage/pkg/idtools"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/treecopy"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/userns"
)

// namespace says which user namespace a command needs when its user is not root.
type namespace bool

const (
	anyNamespace  namespace = false // that of whoever is there, else a new one that ends with the command
	keptNamespace namespace = true  // one that outlives the command: it mounts
)

// storeCommand is a command's function that works on an open store.
type storeCommand func(ctx context.Context, st *store.Store, args []string) error

// withStore turns a function on a store into one that cobra runs: it enters the user namespace, opens the store and
// closes it. check, which may be nil, looks at the command line first: what it refuses is not tried.
func (a *app) withStore(ns namespace, check func(args []string) error, run storeCommand) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if check != nil {
			if err := check(args); err != nil {
				return err
			}
		}
		return a.openStore(ns, func(st *store.Store) error { return run(cmd.Context(), st, args) })
	}
}

// openStore runs what needs the store that the global flags name.
func (a *app) openStore(ns namespace, run func(*store.Store) error) error {
	if err := a.enter(ns); err != nil {
		return err
	}
	st, err := store.Open(store.Options{
		Root: a.flags.root, RunRoot: a.flags.runRoot, Driver: a.flags.driver, DriverOptions: a.flags.driverOptions,
		NoSync: a.flags.noSync, Logger: a.log,
	})
	if err != nil {
		return err
	}
	return joined(run(st), st.Close())
}

// enter runs this very command line again inside a user namespace when its user needs one, and passes on its status.
// Else it returns nil.
func (a *app) enter(ns namespace) error {
	if !userns.Needed() {
		return nil
	}
	if err := a.sig.mute(); err != nil { // the other process undoes its work; this one waits for it
		return err
	}
	code, err := userns.Run(userns.Options{RunRoot: a.flags.runRoot, Keep: bool(ns), Logger: a.log})
	if err != nil {
		return err
	}
	return status(code)
}

// imageName checks that a reference means an image of the store and takes the transport off.
func imageName(ref string) (string, error) {
	if name, ok := strings.CutPrefix(ref, "containers-storage:"); ok {
		return name, nil
	}
	for _, transport := range []string{"docker://", "oci:", "oci-archive:", "docker-archive:", "docker-daemon:", "dir:"} {
		if strings.HasPrefix(ref, transport) {
			return "", kimg.Errorf(kimg.ErrUnsupported, ref, "images are read from the store only, not from %s", strings.TrimRight(transport, ":/"))
		}
	}
	return ref, nil
}

// image finds an image of the store.
func image(ctx context.Context, st *store.Store, ref string) (*store.Image, error) {
	name, err := imageName(ref)
	if err != nil {
		return nil, err
	}
	return st.Resolve(ctx, name, nil)
}

// containerOrImage finds what a name means; when both have it, the container.
func containerOrImage(ctx context.Context, st *store.Store, ref string) (*store.Container, *store.Image, error) {
	c, err := st.Container(ctx, ref)
	if kimg.ClassOf(err) != kimg.ErrNotFound {
		return c, nil, err
	}
	img, err := image(ctx, st, ref)
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		err = kimg.Errorf(kimg.ErrNotFound, ref, "neither a container nor an image")
	}
	return nil, img, err
}

// shortID is the part of an id that people are shown.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// container finds a working container and clears what a killed kimg add left in it.
func container(ctx context.Context, st *store.Store, ref string) (*store.Container, error) {
	c, err := st.Container(ctx, ref)
	if err != nil {
		return nil, err
	}
	upper, err := c.UpperDir()
	if err != nil || !treecopy.Stale(upper) {
		return c, nil // what cannot be done with such a container is for the caller to find out
	}
	return c, c.WithMount(ctx, treecopy.Clear)
}

// state reads the state of a container, and says on standard error what could not be taken over from another tool.
func (a *app) state(ctx context.Context, st *store.Store, c *store.Container) (*copydata.CopyData, error) {
	s, report, err := st.CopyData(ctx, c.ID)
	a.warn(ctx, "not everything could be taken over from the container of another tool", report)
	return s, kimg.Wrap(c.Name, err)
}

// idMap is a container's id map as the library of layers has it.
func idMap(m []idtools.IDMap) layerdiff.IDMap {
	var out layerdiff.IDMap
	for _, r := range m {
		out = append(out, layerdiff.IDRange{Container: uint32(r.ContainerID), Host: uint32(r.HostID), Size: uint32(r.Size)})
	}
	return out
}
