//go:build linux

package testimage

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Node is one file of a tree. Path is relative; the directories above it that are not nodes are made with mode 0755. For
// an ordinary user, who cannot give files away, the owner 0:0 means that user.
type Node struct {
	Path   string
	Type   byte // f, d, l, h (hard link), c, b, p, s as find -type prints them; 0 is f
	Mode   uint32
	UID    int
	GID    int
	Data   string // content of a file
	Size   int64  // when larger than Data: the file is extended with a hole
	Fill   int64  // this many bytes of reproducible noise instead of Data
	Link   string // target of a link; for a hard link the Path of another node before it
	Major  uint32
	Minor  uint32
	Xattrs map[string]string
	Time   time.Time // zero: 1700000000 seconds
}

// Tree is a list of nodes, parents before children.
type Tree []Node

// defaultTime is the modification time of nodes that have none.
var defaultTime = time.Unix(1700000000, 0)

// Write makes the tree in a directory that exists.
func (t Tree) Write(dir string) error {
	for _, n := range t {
		path := filepath.Join(dir, n.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := n.write(dir, path); err != nil {
			return fmt.Errorf("%s: %w", n.Path, err)
		}
	}
	// Times of directories last, the deepest first: making a child changes them.
	dirs := slices.DeleteFunc(slices.Clone(t), func(n Node) bool { return n.Type != 'd' })
	slices.SortStableFunc(dirs, func(a, b Node) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	for _, n := range dirs {
		if err := n.setTime(filepath.Join(dir, n.Path)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) write(root, path string) error {
	if n.Type == 'h' {
		return os.Link(filepath.Join(root, n.Link), path)
	}
	var err error
	switch n.Type {
	case 0, 'f':
		err = n.writeFile(path)
	case 'd':
		if err = os.Mkdir(path, 0o700); os.IsExist(err) {
			err = nil
		}
	case 'l':
		err = os.Symlink(n.Link, path)
	case 'c':
		err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(n.Major, n.Minor)))
	case 'b':
		err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(n.Major, n.Minor)))
	case 'p':
		err = unix.Mkfifo(path, 0o600)
	case 's':
		err = unix.Mknod(path, unix.S_IFSOCK|0o600, 0)
	default:
		err = fmt.Errorf("unknown type %q", n.Type)
	}
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 || n.UID != 0 || n.GID != 0 {
		if err := os.Lchown(path, n.UID, n.GID); err != nil {
			return err
		}
	}
	for name, value := range n.Xattrs {
		if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if n.Type != 'l' {
		if err := unix.Chmod(path, n.Mode); err != nil {
			return err
		}
	}
	return n.setTime(path)
}

func (n *Node) writeFile(path string) error {
	data := []byte(n.Data)
	if n.Fill > 0 {
		data = noise(n.Path, n.Fill)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	if n.Size > int64(len(data)) {
		return os.Truncate(path, n.Size)
	}
	return nil
}

func (n *Node) setTime(path string) error {
	t := n.Time
	if t.IsZero() {
		t = defaultTime
	}
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// noise returns n bytes that depend on the name and do not compress.
func noise(name string, n int64) []byte {
	var seed [32]byte
	copy(seed[:], name)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// ACL is an access list as the attribute system.posix_acl_access holds it: user::, group::, mask and other from a mode,
// and entries for named users and groups.
func ACL(mode uint32, users, groups map[uint32]uint16) string {
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	const none = ^uint32(0)
	list := []entry{{1, uint16(mode >> 6 & 7), none}, {4, uint16(mode >> 3 & 7), none}, {0x20, uint16(mode & 7), none}}
	for id, perm := range users {
		list = append(list, entry{2, perm, id})
	}
	for id, perm := range groups {
		list = append(list, entry{8, perm, id})
	}
	if len(users)+len(groups) > 0 {
		list = append(list, entry{0x10, uint16(mode >> 3 & 7), none})
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range list {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out)
}

// Capability is the attribute security.capability that permits the capabilities in a mask, effective; of version 2, or of
// version 3 for the root user of a namespace when root is not 0.
func Capability(mask uint64, root uint32) string {
	const effective, v2, v3 = 1, 0x02000000, 0x03000000
	magic := uint32(v2)
	if root != 0 {
		magic = v3
	}
	out := binary.LittleEndian.AppendUint32(nil, magic|effective)
	for _, word := range []uint32{uint32(mask), 0, uint32(mask >> 32), 0} {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	if root != 0 {
		out = binary.LittleEndian.AppendUint32(out, root)
	}
	return string(out)
}

// Random returns a tree of up to n nodes of every kind that only depends on the seed.
func Random(seed uint64, n int) Tree {
	r := rand.New(rand.NewPCG(seed, 0x6b696d67))
	t := Tree{}
	dirs, files := []string{""}, []string{}
	for i := range n {
		parent := dirs[r.IntN(len(dirs))]
		node := Node{
			Path: parent + randomName(r, i), Mode: uint32(r.IntN(0o10000)), UID: r.IntN(3) * 500, GID: r.IntN(70000),
			Time: time.Unix(r.Int64N(1<<31)-1000, r.Int64N(1e9)),
		}
		randomNode(r, &node, files)
		switch node.Type {
		case 'd':
			dirs = append(dirs, node.Path+"/")
		case 'f', 'l', 'p':
			files = append(files, node.Path)
		}
		t = append(t, node)
	}
	return t
}

func randomNode(r *rand.Rand, n *Node, files []string) {
	switch k := r.IntN(20); {
	case k < 10:
		n.Type = 'f'
		n.Fill = []int64{0, 1, 100, 511, 512, 513, 5000, 70000, 300000}[r.IntN(9)]
		if r.IntN(20) == 0 {
			n.Size = n.Fill + r.Int64N(1<<20)
		}
		if r.IntN(6) == 0 {
			n.Xattrs = map[string]string{"user.note": "v\x00\xff" + n.Path, "user.empty": ""}
		}
		if r.IntN(10) == 0 {
			n.Mode &^= 0o77
			n.Xattrs = map[string]string{
				"system.posix_acl_access": ACL(n.Mode, map[uint32]uint16{1000: 7}, map[uint32]uint16{50: 4}),
				"security.capability":     Capability(1<<10, 0),
			}
		}
	case k < 14:
		n.Type = 'd'
		n.Mode |= 0o700
		if r.IntN(8) == 0 {
			n.Xattrs = map[string]string{"system.posix_acl_default": ACL(0o750, map[uint32]uint16{7: 5}, nil)}
		}
	case k < 16:
		n.Type = 'l'
		n.Link = strings.Repeat("/target", 1+r.IntN(30))
	case k < 18 && len(files) > 0:
		*n = Node{Path: n.Path, Type: 'h', Link: files[r.IntN(len(files))]}
	case k == 18:
		n.Type, n.Major, n.Minor = "cb"[r.IntN(2)], uint32(1+r.IntN(255)), uint32(r.IntN(1<<18)) // what xfs takes
	default:
		n.Type = 'p'
	}
}

func randomName(r *rand.Rand, i int) string {
	switch r.IntN(12) {
	case 0:
		return fmt.Sprintf("%s%d", strings.Repeat("long", 10+r.IntN(45)), i)
	case 1:
		return fmt.Sprintf("\xff\xfe-not-utf8-%d", i)
	case 2:
		return fmt.Sprintf("ünïcode \"<&>\\%d\n", i)
	}
	return fmt.Sprintf("%c%d", 'a'+rune(r.IntN(26)), i)
}
