package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// changer does changes below a root and remembers the first failure and every path it touched.
type changer struct {
	root    string
	r       *rand.Rand
	touched map[string]bool
	err     error
}

func (c *changer) do(name string, f func(path string) error) {
	if c.err != nil {
		return
	}
	if c.touched == nil {
		c.touched = map[string]bool{}
	}
	for p := name; p != "."; p = filepath.Dir(p) {
		c.touched[p] = true
	}
	if c.err = f(filepath.Join(c.root, name)); c.err != nil {
		c.err = fmt.Errorf("%s: %w", name, c.err)
	}
}

// settle gives everything that was touched its final time, deepest first.
func (c *changer) settle() error {
	for name := range c.touched {
		path := filepath.Join(c.root, name)
		if _, err := os.Lstat(path); err != nil {
			continue // removed, or renamed away
		}
		if err := setTime(path, Then); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (c *changer) dir(name string, mode uint32) {
	c.do(name, func(p string) error {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
		return unix.Chmod(p, mode)
	})
}

func (c *changer) file(name, content string, mode uint32) {
	c.do(name, func(p string) error {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			return err
		}
		return unix.Chmod(p, mode)
	})
}

func (c *changer) text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz \n"[c.r.IntN(28)]
	}
	return string(b)
}

// random writes a file that does not compress.
func (c *changer) random(name string, size int64) {
	c.do(name, func(p string) error {
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], c.r.Uint64())
		_, err = io.CopyN(f, rand.NewChaCha8(seed), size)
		return errors.Join(err, f.Close())
	})
}

func (c *changer) remove(name string) {
	c.do(name, func(p string) error {
		if _, err := os.Lstat(p); err != nil {
			return err
		}
		return os.RemoveAll(p)
	})
}

func (c *changer) rename(old, name string) {
	c.do(old, func(string) error { return nil })
	c.do(name, func(p string) error { return os.Rename(filepath.Join(c.root, old), p) })
}

func (c *changer) link(old, name string) {
	c.do(name, func(p string) error { return os.Link(filepath.Join(c.root, old), p) })
}

func (c *changer) symlink(target, name string) {
	c.do(name, func(p string) error { return os.Symlink(target, p) })
}

func (c *changer) chmod(name string, mode uint32) {
	c.do(name, func(p string) error { return unix.Chmod(p, mode) })
}

// own changes the owner and gives back the bits of the mode that this takes away.
func (c *changer) own(name string, uid, gid int) {
	c.do(name, func(p string) error {
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		if err := os.Lchown(p, uid, gid); err != nil || st.Mode()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chmod(p, st.Mode())
	})
}

func (c *changer) xattr(name, attr, value string) {
	c.do(name, func(p string) error { return unix.Lsetxattr(p, attr, []byte(value), 0) })
}

// capability grants cap_net_raw, effective and permitted, in the form without a root id (v2).
func (c *changer) capability(name string) {
	value := make([]byte, 20)
	binary.LittleEndian.PutUint32(value, 0x02000001)
	binary.LittleEndian.PutUint32(value[4:], 1<<13)
	c.xattr(name, "security.capability", string(value))
}

// acl adds a list with one named user and one named group of the same number.
func (c *changer) acl(name, attr string, id uint32) {
	const none = ^uint32(0)
	value := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, none}, {2, 6, id}, {4, 4, none}, {8, 4, id}, {16, 6, none}, {32, 0, none}} {
		value = binary.LittleEndian.AppendUint16(value, e.tag)
		value = binary.LittleEndian.AppendUint16(value, e.perm)
		value = binary.LittleEndian.AppendUint32(value, e.id)
	}
	c.xattr(name, attr, string(value))
}
