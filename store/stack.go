package store

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	drivers "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/archive"
	"github.com/containers/storage/pkg/idtools"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// StackOptions say what reading a container overlooks.
type StackOptions struct {
	Force bool // files that a power cut may have emptied
}

// Stack is the tree of a container, an image or a layer, and what it is compared with, ready for a walk. The caller closes
// it when the walk has ended.
type Stack struct {
	view.Stack
	UIDs, GIDs layerdiff.IDMap // under which the upper directory was written
	ends       []func()
}

// Close takes away what was mounted to read the stack. It may be called again.
func (s *Stack) Close() {
	for _, end := range s.ends {
		end()
	}
	s.ends = nil
}

// Readable is a [Container], an [Image] or a [Layer]: something whose tree can be read without changing it.
type Readable interface{ readable() readable }

type readable struct {
	name, layerID string // no layer: an empty tree
	container     *Container
	built         *WorkLayer
	mounter       interface {
		Mount(ctx context.Context) (string, error)
		Unmount(ctx context.Context) error
	}
}

func (c *Container) readable() readable {
	return readable{name: c.Name, layerID: c.LayerID, container: c, mounter: c}
}
func (i *Image) readable() readable {
	return readable{name: i.label(), layerID: i.TopLayer, mounter: i}
}
func (l *Layer) readable() readable { return readable{name: "layer " + l.ID, layerID: l.ID} }

// Stack opens what r changed: a container since it was made, a layer or the newest layer of an image compared with those below. Where the
// kernel's overlay wrote the directories they are read as they lie there; trees of vfs are compared as wholes, and so are those
// of a mount program, which shows them to this process only. Class notfound: an image without layers. Class unsupported: the directories do not hold plain files (see [Store.Info]). Class
// damaged: a container that was mounted without syncs and never unmounted, and nobody forces it.
func (s *Store) Stack(ctx context.Context, r Readable, o StackOptions) (*Stack, error) {
	of := r.readable()
	if of.layerID == "" {
		return nil, kimg.Errorf(kimg.ErrNotFound, of.name, "the image has no layers")
	}
	l, err := s.st.Layer(of.layerID)
	if err != nil {
		return nil, wrap(of.name, err)
	}
	return s.openStack(ctx, of, l.Parent, o)
}

// Compare opens all of what upper shows, compared with all of what lower shows, or with nothing when lower is nil. A
// container that maps ids is mounted for that, unless lower is its image. Class unsupported, beside the reasons of [Store.Stack]: the
// files of lower are kept with ids that upper does not have.
func (s *Store) Compare(ctx context.Context, lower, upper Readable, o StackOptions) (_ *Stack, err error) {
	var base readable // an empty tree
	if lower != nil {
		base = lower.readable()
	}
	of := upper.readable()
	stack, err := s.openStack(ctx, of, "", o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			stack.Close()
		}
	}()
	below, err := s.openStack(ctx, base, "", o)
	if err != nil {
		return nil, err
	}
	stack.ends = append(stack.ends, below.ends...)
	if below.mapped() && !(slices.Equal(stack.UIDs, below.UIDs) && slices.Equal(stack.GIDs, below.GIDs)) {
		return nil, kimg.Errorf(kimg.ErrUnsupported, base.name, "its files are kept with other ids than those of %s", of.name)
	}
	stack.Base = append([]string{}, below.Lowers...)
	if below.Upper != "" {
		stack.Base = slices.Insert(stack.Base, 0, below.Upper)
	}
	if !stack.mapped() || stack.Plain || slices.Equal(stack.Base, stack.Lowers) {
		return stack, nil
	}
	// The layers below may have other ids on disk than the container's own directory; a mount shows one kind.
	shown := view.Stack{Plain: true, Base: []string{}}
	if shown.Upper, err = stack.mount(ctx, of); err == nil && base.layerID != "" {
		shown.Base = []string{""}
		shown.Base[0], err = stack.mount(ctx, base)
	}
	stack.Stack = shown
	return stack, err
}

func (s *Stack) mapped() bool { return len(s.UIDs) > 0 || len(s.GIDs) > 0 }

// mount mounts a container or an image until the stack is closed.
func (s *Stack) mount(ctx context.Context, r readable) (string, error) {
	if r.mounter == nil {
		return "", kimg.Errorf(kimg.ErrUnsupported, r.name, "a layer cannot be mounted, and cannot be compared with a container that maps ids")
	}
	path, err := r.mounter.Mount(ctx)
	if err == nil {
		s.ends = append(s.ends, func() { _ = r.mounter.Unmount(context.WithoutCancel(ctx)) }) // a count that stays is cleared by the next one
	}
	return path, err
}

// Stack opens what the container changed; see [Store.Stack].
func (c *Container) Stack(ctx context.Context, o StackOptions) (*Stack, error) {
	return c.s.Stack(ctx, c, o)
}

// Stack opens what the newest layer of the image changed; see [Store.Stack].
func (i *Image) Stack(ctx context.Context) (*Stack, error) {
	return i.s.Stack(ctx, i, StackOptions{})
}

// openStack opens a tree. Of stores that keep or show whole trees, parent is the layer of the tree it is compared with; "" for none.
func (s *Store) openStack(ctx context.Context, of readable, parent string, o StackOptions) (stack *Stack, err error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	if err := s.canWalk(); err != nil {
		return nil, kimg.Wrap(of.name, err)
	}
	stack = &Stack{}
	defer func() {
		if err != nil {
			stack.Close()
			stack, err = nil, kimg.Wrap(of.name, err)
		}
	}()
	program := s.mountProgram()
	whole := program != "" || s.st.GraphDriverName() == vfs
	if of.layerID == "" {
		stack.Stack = view.Stack{Plain: whole, XattrPrefix: xattrPrefix()}
		return stack, nil
	}
	if of.built != nil && !whole {
		stack.Stack, err = of.built.dirs()
		return stack, err
	}
	if stack.Stack, err = s.dirsOf(of.layerID); err != nil {
		return stack, err
	}
	if of.container != nil {
		if program == "" && !o.Force {
			if err = of.container.checkVolatile(stack.Upper); err != nil {
				return stack, err
			}
		}
		if stack.UIDs, stack.GIDs, err = s.idMaps(of.container, program); err != nil {
			return stack, err
		}
	}
	if !whole {
		return stack, nil
	}
	if stack.Stack, err = s.tree(ctx, stack, program); err != nil || parent == "" {
		return stack, err
	}
	upper := stack.Upper
	if stack.Stack, err = s.dirsOf(parent); err == nil {
		stack.Stack, err = s.tree(ctx, stack, program)
	}
	stack.Upper, stack.Lowers = upper, []string{stack.Upper}
	return stack, err
}

// tree makes one directory, which shows everything, of the directories of a stack.
func (s *Store) tree(ctx context.Context, stack *Stack, program string) (view.Stack, error) {
	shown := view.Stack{Upper: stack.Upper, Plain: true}
	if program == "" {
		return shown, nil
	}
	m, err := s.mountWith(ctx, program, append([]string{stack.Upper}, stack.Lowers...))
	if err != nil {
		return shown, err
	}
	stack.ends = append(stack.ends, m.close)
	shown.Upper = m.path
	return shown, nil
}

// idMaps returns the maps between the ids of a container's files and those it sees.
func (s *Store) idMaps(c *Container, program string) (uids, gids layerdiff.IDMap, err error) {
	l, err := s.st.Layer(c.LayerID)
	if err != nil {
		return nil, nil, wrap("layer "+c.LayerID, err)
	}
	driver, err := s.st.GraphDriver()
	if err != nil {
		return nil, nil, wrap("store", err)
	}
	// With idmapped mounts only the container has a map; without them the layer has the same one, or the store's own. A
	// mount program that maps ids does so for all directories, which then hold the ids the container sees, though today's
	// podman writes the map into the layer's record too.
	um, gm := l.UIDMap, l.GIDMap
	if program != "" && driver.SupportsShifting(c.UIDMap, c.GIDMap) {
		um, gm = nil, nil
	} else if len(um) == 0 && len(gm) == 0 && program == "" {
		um, gm = c.UIDMap, c.GIDMap
	}
	if uids, err = idMap(um); err == nil {
		gids, err = idMap(gm)
	}
	return uids, gids, err
}

// dirsOf returns the directories of a layer, top first, as the driver has them. Those of an additional store lie below
// another root. A layer of vfs has one, with everything in it.
func (s *Store) dirsOf(layerID string) (view.Stack, error) {
	driver, err := s.st.GraphDriver()
	if err != nil {
		return view.Stack{}, wrap("store", err)
	}
	if s.st.GraphDriverName() == vfs {
		dir, err := driver.Get(layerID, drivers.MountOpts{}) // mounts nothing
		return view.Stack{Upper: dir, Plain: true}, wrap("layer "+layerID, err)
	}
	dirs, err := driver.Metadata(layerID)
	if err != nil {
		return view.Stack{}, wrap("layer "+layerID, err)
	}
	stack := view.Stack{Upper: dirs["UpperDir"], XattrPrefix: xattrPrefix()}
	stack.Lowers = older(stack.Upper)
	for lower := range strings.SplitSeq(dirs["LowerDir"], ":") { // overlay itself cannot have a colon in them
		if lower != "" {
			stack.Lowers = append(append(stack.Lowers, lower), older(lower)...)
		}
	}
	return stack, complete(layerID, stack)
}

// complete refuses a layer whose directories are not all there.
func complete(layerID string, stack view.Stack) error {
	for _, dir := range append([]string{stack.Upper}, stack.Lowers...) {
		if info, err := os.Stat(dir); err != nil {
			return kimg.Errorf(kimg.ErrDamaged, "layer "+layerID, "one of its directories is missing: %w", err)
		} else if !info.IsDir() || !filepath.IsAbs(dir) {
			return kimg.Errorf(kimg.ErrDamaged, "layer "+layerID, "%s is not a directory", dir)
		}
	}
	return nil
}

// UpperDir returns the directory that the container's files are written to: of vfs the whole tree.
func (c *Container) UpperDir() (string, error) {
	dirs, err := c.s.dirsOf(c.LayerID)
	return dirs.Upper, kimg.Wrap(c.Name, err)
}

func xattrPrefix() string {
	return strings.TrimSuffix(archive.GetOverlayXattrName("opaque"), "opaque")
}

// older returns the directories that lie directly below a layer's own one and belong to it. Without idmapped mounts the driver
// writes a copy of a layer with other owners, and puts that copy, and the copies of the copy, there; its list of
// directories does not have them.
func older(diff string) []string {
	var dirs []string
	for n := 1; ; n++ {
		dir := diff + strconv.Itoa(n)
		if _, err := os.Lstat(dir); err != nil {
			return dirs
		}
		dirs = append(dirs, dir)
	}
}

// checkVolatile refuses a container whose kernel mark says that it was mounted without syncs and never unmounted.
// Unmounting leaves the mark too, so it only counts when nothing is mounted; mounting again removes it.
func (c *Container) checkVolatile(upper string) error {
	mark := filepath.Join(filepath.Dir(upper), "work", "work", "incompat", "volatile")
	if _, err := os.Lstat(mark); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return kimg.Wrap(c.Name, err)
	}
	path, _, err := c.Mounted()
	if err != nil || path != "" {
		return err
	}
	return kimg.Errorf(kimg.ErrDamaged, c.Name, "was mounted without syncs and not unmounted: the machine going down may have emptied its files (use --force to take them as they are)")
}

func idMap(m []idtools.IDMap) (layerdiff.IDMap, error) {
	var out layerdiff.IDMap
	for _, r := range m {
		for _, n := range []int{r.ContainerID, r.HostID, r.Size} {
			if n < 0 || n > math.MaxUint32 {
				return nil, kimg.Errorf(kimg.ErrInvalid, "", "id map %v is out of range", r)
			}
		}
		out = append(out, layerdiff.IDRange{Container: uint32(r.ContainerID), Host: uint32(r.HostID), Size: uint32(r.Size)})
	}
	return out, nil
}
