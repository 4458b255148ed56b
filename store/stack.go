package store

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	drivers "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/archive"
	"github.com/containers/storage/pkg/idtools"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// StackOptions say what [Container.Stack] overlooks.
type StackOptions struct {
	Force bool // files that a power cut may have emptied
}

// Stack returns the directories the container is made of, top first, and the id maps under which the upper one was
// written; of a vfs store, whose layers are whole trees, the container's and the one it began with. Class unsupported: the
// directories do not hold plain files (see [Store.Info]). Class damaged: the container was mounted without syncs and never unmounted, and nobody forces it.
func (c *Container) Stack(ctx context.Context, o StackOptions) (stack view.Stack, uids, gids layerdiff.IDMap, err error) {
	if err := check(ctx); err != nil {
		return stack, nil, nil, err
	}
	if err := c.s.canWalk(); err != nil {
		return stack, nil, nil, kimg.Wrap(c.Name, err)
	}
	if stack, err = c.s.stackOf(c.LayerID); err != nil {
		return stack, nil, nil, kimg.Wrap(c.Name, err)
	}
	if !o.Force {
		if err := c.checkVolatile(stack); err != nil {
			return stack, nil, nil, err
		}
	}
	l, err := c.s.st.Layer(c.LayerID)
	if err != nil {
		return stack, nil, nil, wrap(c.Name, err)
	}
	// With idmapped mounts only the container has a map; without them the layer has the same one, or the store's own.
	um, gm := l.UIDMap, l.GIDMap
	if len(um) == 0 && len(gm) == 0 {
		um, gm = c.UIDMap, c.GIDMap
	}
	if uids, err = idMap(um); err == nil {
		gids, err = idMap(gm)
	}
	return stack, uids, gids, kimg.Wrap(c.Name, err)
}

// stackOf asks the driver for the directories of a layer. Those of an additional store lie below another root.
func (s *Store) stackOf(layerID string) (view.Stack, error) {
	driver, err := s.st.GraphDriver()
	if err != nil {
		return view.Stack{}, wrap("store", err)
	}
	if s.st.GraphDriverName() == vfs {
		return s.treesOf(driver, layerID)
	}
	dirs, err := driver.Metadata(layerID)
	if err != nil {
		return view.Stack{}, wrap("layer "+layerID, err)
	}
	stack := view.Stack{Upper: dirs["UpperDir"], XattrPrefix: strings.TrimSuffix(archive.GetOverlayXattrName("opaque"), "opaque")}
	stack.Lowers = older(stack.Upper)
	for lower := range strings.SplitSeq(dirs["LowerDir"], ":") { // overlay itself cannot have a colon in them
		if lower != "" {
			stack.Lowers = append(append(stack.Lowers, lower), older(lower)...)
		}
	}
	for _, dir := range append([]string{stack.Upper}, stack.Lowers...) {
		if info, err := os.Stat(dir); err != nil {
			return view.Stack{}, kimg.Errorf(kimg.ErrDamaged, "layer "+layerID, "one of its directories is missing: %w", err)
		} else if !info.IsDir() || !filepath.IsAbs(dir) {
			return view.Stack{}, kimg.Errorf(kimg.ErrDamaged, "layer "+layerID, "%s is not a directory", dir)
		}
	}
	return stack, nil
}

// treesOf returns the trees of a layer and of its parent.
func (s *Store) treesOf(driver drivers.Driver, layerID string) (view.Stack, error) {
	stack := view.Stack{Plain: true}
	l, err := s.st.Layer(layerID)
	if err == nil {
		stack.Upper, err = driver.Get(layerID, drivers.MountOpts{}) // mounts nothing
	}
	if err == nil && l.Parent != "" {
		var parent string
		parent, err = driver.Get(l.Parent, drivers.MountOpts{})
		stack.Lowers = []string{parent}
	}
	return stack, wrap("layer "+layerID, err)
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
func (c *Container) checkVolatile(stack view.Stack) error {
	mark := filepath.Join(filepath.Dir(stack.Upper), "work", "work", "incompat", "volatile")
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
