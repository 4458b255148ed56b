package layerdiff

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// visitor is told what a walk meets, in lexical order: a directory before what is in it, names sorted by bytes within
// one directory. That is the order in which containers/storage writes its archives.
type visitor interface {
	enter(d *dir) error                         // a directory, before what is in it
	visit(d *dir, name string, typ uint8) error // anything else, with its unix.DT_* type
	leftOut(d *dir, name, reason string) error  // what stays out of the layer
	leave(d *dir) error                         // nothing more in it will be met; called once for each enter, also after a failure
	cancelled() error                           // why the walk should end early, or nil
}

// walk visits everything in a directory.
func (t *tree) walk(d *dir, v visitor, skipUnreadable bool) error {
	names, err := atfs.ReadDir(d.fd)
	if err != nil {
		return reading(d.show(""), err)
	}
	for _, n := range names {
		if err := v.cancelled(); err != nil {
			return err
		}
		if err := t.step(d, n, v, skipUnreadable); err != nil {
			return err
		}
	}
	return d.unchanged()
}

func (t *tree) step(d *dir, n atfs.Name, v visitor, skipUnreadable bool) error {
	if strings.HasPrefix(n.Name, ".wh.") {
		return fail(kimg.ErrUnsupported, d.show(n.Name), "a layer would read this name as a deletion")
	}
	if n.Type == unix.DT_UNKNOWN {
		var st unix.Stat_t
		if err := atfs.Lstat(d.fd, n.Name, &st); err != nil {
			return reading(d.show(n.Name), err)
		}
		n.Type = direntType(st.Mode)
	}
	switch n.Type {
	case unix.DT_DIR:
		sub, err := t.enter(d, n.Name)
		if skipUnreadable && errors.Is(err, errUnreadable) {
			return v.leftOut(d, n.Name, err.Error())
		}
		if err != nil {
			return err
		}
		err = v.enter(sub)
		if err == nil {
			err = t.walk(sub, v, skipUnreadable)
		}
		if err2 := v.leave(sub); err == nil {
			err = err2
		}
		return err
	}
	return v.visit(d, n.Name, n.Type)
}

// direntType returns the type of a file as a directory lists it.
func direntType(mode uint32) uint8 { return uint8(mode & unix.S_IFMT >> 12) }
