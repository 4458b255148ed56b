package layerdiff

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// visitor is told what a walk meets, in lexical order: a directory before what is in it, names sorted by bytes within
// one directory. That is the order in which containers/storage writes its archives.
type visitor interface {
	enter(d *dir) error                        // a directory, before what is in it
	visit(d *dir, n view.Name) error           // anything else; At is negative for a name that only the base has
	leftOut(d *dir, name, reason string) error // what stays out of the layer
	leave(d *dir) error                        // nothing more in it will be met; called once for each enter, also after a failure
}

// walk visits everything in a directory that may differ from the base: what the upper directory has and, where other
// layers than the base show through it, every name of either.
func (t *tree) walk(d *dir, v visitor) error {
	if d.whole {
		names, err := d.names()
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := t.step(d, n, v); err != nil {
				return err
			}
		}
		return d.unchanged()
	}
	if d.fd < 0 {
		return nil // the root of a tree and itself
	}
	names, err := atfs.ReadDir(d.fd)
	if err != nil {
		return reading(d.show(""), err)
	}
	for _, n := range names {
		if err := t.step(d, view.Name{Name: n.Name, Type: n.Type, At: d.fd}, v); err != nil {
			return err
		}
	}
	return d.unchanged()
}

// names returns the names of the upper directory, those that show through it, and those that only the base has, sorted.
func (d *dir) names() ([]view.Name, error) {
	var out []view.Name
	seen := map[string]bool{}
	if d.fd >= 0 {
		names, err := atfs.ReadDir(d.fd)
		if err != nil {
			return nil, reading(d.show(""), err)
		}
		for _, n := range names {
			seen[n.Name] = true
			out = append(out, view.Name{Name: n.Name, Type: n.Type, At: d.fd})
		}
	}
	for _, other := range []*view.Dir{d.from, d.base} {
		names, err := other.Names()
		if err != nil {
			return nil, below(d.show(""), err)
		}
		for _, n := range names {
			if seen[n.Name] {
				continue
			}
			seen[n.Name] = true
			if other == d.base {
				n.At = -1
			}
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b view.Name) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (t *tree) step(d *dir, n view.Name, v visitor) error {
	if err := t.cancelled(); err != nil {
		return err
	}
	if strings.HasPrefix(n.Name, ".wh.") && n.At >= 0 {
		return fail(kimg.ErrUnsupported, d.show(n.Name), "a layer would read this name as a deletion")
	}
	if n.Type == unix.DT_UNKNOWN && n.At >= 0 {
		var st unix.Stat_t
		if err := atfs.Lstat(n.At, n.Name, &st); err != nil {
			return reading(d.show(n.Name), err)
		}
		n.Type = direntType(st.Mode)
	}
	if n.Type != unix.DT_DIR || n.At < 0 {
		return v.visit(d, n)
	}
	sub, err := t.enter(d, n.Name, n.At)
	if t.lenient && errors.Is(err, errUnreadable) {
		return v.leftOut(d, n.Name, err.Error())
	}
	if err != nil || sub == nil {
		return err
	}
	target, err := t.emptyTarget(sub)
	if target {
		sub.same = true // nothing of it is in the layer
		err = v.leftOut(d, n.Name, mountTarget)
	}
	if err == nil {
		err = v.enter(sub)
	}
	if err == nil {
		err = t.walk(sub, v)
	}
	if err2 := v.leave(sub); err == nil {
		err = err2
	}
	return err
}

// direntType returns the type of a file as a directory lists it.
func direntType(mode uint32) uint8 { return uint8(mode & unix.S_IFMT >> 12) }
