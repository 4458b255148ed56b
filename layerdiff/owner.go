package layerdiff

import (
	"encoding/binary"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/layerdiff/view"
)

// ids turns what the host stores about owners into what the container sees: owners of files, the users and groups in
// access lists, the root a capability belongs to.
type ids struct{ uids, gids IDMap }

// owner returns the container's ids of a file.
func (m ids) owner(path func() string, uid, gid uint32) (cuid, cgid uint32, err error) {
	cuid, ok := m.uids.ToContainer(uid)
	if !ok {
		return 0, 0, fail(kimg.ErrUnsupported, path(), "its owner %d is outside the container's user id map", uid)
	}
	cgid, ok = m.gids.ToContainer(gid)
	if !ok {
		return 0, 0, fail(kimg.ErrUnsupported, path(), "its group %d is outside the container's group id map", gid)
	}
	return cuid, cgid, nil
}

// The attributes that carry ids, and the one that says something about the host only.
const (
	aclAccess   = "system.posix_acl_access"
	aclDefault  = "system.posix_acl_default"
	capability  = "security.capability"
	selinuxName = "security.selinux"
)

// wanted reports whether an attribute is read at all. Those are not that say something about the host and its file
// system and nothing about the file: labels, signatures over inode numbers, the form in which xfs stores access lists
// (they are read in the common form as well), properties of btrfs.
func wanted(name string) bool {
	switch name {
	case selinuxName, "security.evm", "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT":
		return false
	}
	return !strings.HasPrefix(name, "btrfs.")
}

// attrs is the extended attributes of one file, each list sorted by name.
type attrs struct {
	layer []atfs.Xattr // as they enter the layer, in the container's terms
	raw   []atfs.Xattr // the same ones as they are stored
	own   []atfs.Xattr // overlay's own, of both families
}

// size returns roughly how many bytes the attributes take in a header.
func (a *attrs) size() (n int) {
	for _, x := range a.layer {
		n += len(x.Name) + len(x.Value) + 32
	}
	return n
}

// attributes sorts out the attributes of a file.
func (m ids) attributes(path func() string, all []atfs.Xattr) (a attrs, err error) {
	for _, x := range all {
		if view.Own(x.Name) {
			a.own = append(a.own, x)
			continue
		}
		a.raw = append(a.raw, x)
		switch x.Name {
		case aclAccess, aclDefault:
			x.Value, err = m.acl(path, x.Value)
		case capability:
			x.Value, err = m.capability(path, x.Value)
		}
		if err != nil {
			return attrs{}, err
		}
		a.layer = append(a.layer, x)
	}
	return a, nil
}

// InContainer returns a file's owner and extended attributes as a container with these id maps sees them, the attributes
// sorted by name and without overlay's own. What the maps cannot say is class unsupported, named by path.
func InContainer(uids, gids IDMap, path string, uid, gid uint32, all []atfs.Xattr) (cuid, cgid uint32, attributes []atfs.Xattr, err error) {
	m, name := ids{uids, gids}, func() string { return path }
	a, err := m.attributes(name, all)
	if err != nil {
		return 0, 0, nil, err
	}
	cuid, cgid, err = m.owner(name, uid, gid)
	return cuid, cgid, a.layer, err
}

// InLayers reports whether an extended attribute belongs into layers: not overlay's own, and not what says something about
// the host only.
func InLayers(name string) bool { return foreign(name) }

// An access list is a version and entries of tag, permissions and id; all little-endian.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntry     = 8
	aclTagUser   = 2
	aclTagGroup  = 8
	capV2        = 0x02000000
	capV3        = 0x03000000
	capVersion   = 0xff000000
	capV2Size    = 20
	capV3Size    = 24
	capV3RootID  = 20
	aclIDInEntry = 4
)

// acl maps the ids in an access list.
func (m ids) acl(path func() string, value string) (string, error) {
	b := []byte(value)
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntry != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return "", fail(kimg.ErrUnsupported, path(), "its access list is of an unknown form")
	}
	for e := b[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		ids, what := m.uids, "user"
		switch binary.LittleEndian.Uint16(e) {
		case aclTagUser:
		case aclTagGroup:
			ids, what = m.gids, "group"
		default:
			continue
		}
		host := binary.LittleEndian.Uint32(e[aclIDInEntry:])
		id, ok := ids.ToContainer(host)
		if !ok {
			return "", fail(kimg.ErrUnsupported, path(), "its access list names %s %d, outside the container's id map", what, host)
		}
		binary.LittleEndian.PutUint32(e[aclIDInEntry:], id)
	}
	return string(b), nil
}

// capability turns capabilities that hold for the container's root into the form without a root id.
func (m ids) capability(path func() string, value string) (string, error) {
	b := []byte(value)
	if len(b) < 4 || binary.LittleEndian.Uint32(b)&capVersion != capV3 {
		return value, nil
	}
	if len(b) != capV3Size {
		return "", fail(kimg.ErrUnsupported, path(), "its capabilities are of an unknown form")
	}
	host := binary.LittleEndian.Uint32(b[capV3RootID:])
	if root, ok := m.uids.ToContainer(host); !ok || root != 0 {
		return "", fail(kimg.ErrUnsupported, path(), "its capabilities belong to user id %d, which is not the container's root", host)
	}
	binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)&^uint32(capVersion)|capV2)
	return string(b[:capV2Size]), nil
}

// same reports whether a file of the upper directory and one of a lower layer have the same owner in the container's
// eyes. A lower layer may be stored with the host's ids or, behind an id-mapped mount, with the container's; where both
// readings are possible and disagree the answer is no.
func (m ids) same(upperUID, upperGID, lowerUID, lowerGID uint32) bool {
	return sameID(m.uids, upperUID, lowerUID) && sameID(m.gids, upperGID, lowerGID)
}

func sameID(m IDMap, upper, lower uint32) bool {
	if len(m) == 0 {
		return upper == lower
	}
	seen, ok := m.ToContainer(upper)
	if !ok {
		return false
	}
	_, isHost := m.ToContainer(lower)
	_, isContainer := m.ToHost(lower)
	return (isHost || isContainer) && (!isHost || lower == upper) && (!isContainer || lower == seen)
}

// same compares the attributes of such two files; lower is sorted and without overlay's own.
func (a *attrs) same(lower []atfs.Xattr) bool {
	if len(a.layer) != len(lower) {
		return false
	}
	for i, l := range lower {
		stored := a.raw[i] == l && l.Name != aclAccess && l.Name != aclDefault
		if a.layer[i] != l && !stored {
			return false
		}
	}
	return true
}

// fail returns an error about a path. The path is cut so that a long one leaves room for the cause.
func fail(class kimg.Class, path, format string, args ...any) error {
	return kimg.Errorf(class, kimg.Escape(path, 256), format, args...)
}
