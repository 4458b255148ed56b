package layerdiff

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/atfs"
)

// mountTarget is why what a runtime made to mount something on is left out.
const mountTarget = "an empty mount target, made to run the container"

// isMountTarget reports whether something empty is one of Options.MountTargets and looks as runtimes make them: the
// container's root has it, it has mode 0755 and no attributes.
func (t *tree) isMountTarget(d *dir, name string, st *unix.Stat_t, a *attrs) bool {
	if len(t.targets) == 0 || st.Mode&0o6777 != 0o755 || len(a.layer) > 0 || !slices.Contains(t.targets, d.show(name)) {
		return false
	}
	uid, gid, err := t.owner(func() string { return d.show(name) }, st.Uid, st.Gid)
	return err == nil && uid == 0 && gid == 0
}

// emptyTarget reports whether a directory is a mount target with nothing in it that the base does not have in any form. Another
// look at its names is taken for candidates only.
func (t *tree) emptyTarget(d *dir) (bool, error) {
	if !t.isMountTarget(d.parent, d.name, &d.st, &d.attrs) || d.fd < 0 || d.base != nil || d.from != nil {
		return false, nil
	}
	e := entry{dir: d.parent, name: d.name}
	if err := t.lookBelow(&e); err != nil || e.below {
		return false, err
	}
	names, err := atfs.ReadDir(d.fd)
	return err == nil && len(names) == 0, reading(d.show(""), err)
}
