//go:build linux

package untar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/tarmember"
	"github.com/kimg/kimg/internal/tarsplit"
)

// Options say how a layer lies in its directory.
type Options struct {
	// UserNS: this process is root of a user namespace only. Devices are left out, attributes that it may not set as well,
	// and overlay's own attributes are those of users.
	UserNS bool
	// KeepMarks: deletions stay files named .wh.NAME, as a mount program reads them.
	KeepMarks bool
	// IgnoreOwners: files whose owner cannot be set stay this process's.
	IgnoreOwners bool
	// Take is told how many bytes of the tar are about to be taken, or how large a file with holes will be, and may refuse that. It is
	// called by two goroutines; may be nil.
	Take func(bytes int64) error
	// Stop ends a Read of the tar that waits, without waiting for it. It is called when unpacking has failed; may be nil.
	Stop func()
	// Record makes a file without a name for the tar-split record. [Unpack] needs it.
	Record func() (*os.File, error)
	Log    *slog.Logger // nil discards
}

// Result is a layer that was unpacked.
type Result struct {
	DiffID     digest.Digest // sha256 of the tar
	Size       int64         // of the tar, in bytes
	UIDs, GIDs []uint32      // owners, sorted, each once
	Record     *os.File      // the tar-split record; the caller closes it
}

// Unpack unpacks an uncompressed tar, which it closes, into a directory that is empty. What it made before an error is for the
// caller to remove. The directory itself keeps its owner and mode. See the package's documentation for classes of errors.
func Unpack(ctx context.Context, dir string, plain io.ReadCloser, o Options) (_ Result, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := atfs.OpenRoot(dir)
	if err != nil {
		return Result{}, errors.Join(kimg.Wrap(dir, err), plain.Close())
	}
	record, err := o.Record()
	if err != nil {
		_ = unix.Close(root)
		return Result{}, errors.Join(err, plain.Close())
	}
	u := &unpacker{
		o: o, root: root, at: -1, record: record, split: tarsplit.NewWriter(record), members: newMembers(ctx, plain, o.Take),
		uids: map[uint32]bool{}, gids: map[uint32]bool{}, seed: maphash.MakeSeed(), seen: map[uint64]bool{}, again: map[string]*again{},
	}
	defer u.close()
	if err = u.prepare(); err == nil {
		err = u.run()
	}
	if err != nil {
		u.abandon(o.Stop)
		u.record.Close()
		return Result{}, u.class(err)
	}
	return Result{
		DiffID: u.finish(), Size: u.feed.n, UIDs: slices.Sorted(maps.Keys(u.uids)), GIDs: slices.Sorted(maps.Keys(u.gids)), Record: u.record,
	}, nil
}

// Copy writes an uncompressed tar, which it closes, on to w and checks its members as Unpack does. Sparse ones
// are class unsupported, because those who read the copy may not know them.
func Copy(ctx context.Context, w io.Writer, plain io.ReadCloser, o Options) error {
	m := newMembers(ctx, plain, o.Take)
	m.through = w
	err := func() error {
		for {
			h, err := m.next()
			if err != nil || h == nil {
				return err
			}
			if tarmember.Sparse(h) {
				return kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(h.Name, 255), "a sparse member, which only an overlay store takes")
			}
			if _, err := io.Copy(io.Discard, m.tar); err != nil {
				return err
			}
		}
	}()
	if err == nil {
		err = m.tail(func([]byte) {})
	}
	if err != nil {
		m.abandon(o.Stop)
		return m.class(err)
	}
	return nil
}

// unpacker unpacks one tar.
type unpacker struct {
	*members
	o      Options
	root   int
	own    unix.Stat_t // how the kernel makes files here
	at     int         // the directory of the last member, root or open for itself; -1: none
	dir    string      // its path
	linked bool        // a link of the tar was followed
	dirs   []dirMeta   // to be given their metadata at the end
	names  int         // bytes that dirs takes
	record *os.File
	split  *tarsplit.Writer
	uids   map[uint32]bool
	gids   map[uint32]bool
	buf    [chunkSize]byte

	// What the record has of each name, by its hash: whether content. Equal hashes only make a name look as if it came twice.
	seed  maphash.Seed
	seen  map[uint64]bool
	again map[string]*again // names that really came twice
	saved int64             // bytes of content kept for them
}

// probeName is for a moment in a directory that is empty.
const probeName = ".kimg-probe"

func (u *unpacker) prepare() (err error) {
	// A default access list on the store's directories must not reach into the layer.
	if err := unix.Fremovexattr(u.root, aclDefault); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
		return err
	}
	u.own, err = atfs.Probe(u.root, probeName)
	return err
}

func (u *unpacker) close() {
	u.leave()
	_ = unix.Close(u.root)
	for _, a := range u.again {
		a.close()
	}
}

func (u *unpacker) run() error {
	for {
		h, err := u.next()
		if err != nil {
			return err
		}
		if h == nil {
			break
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			u.split.Raw(u.raw)
			continue
		}
		if err := u.member(h); err != nil {
			return u.explain(h, err)
		}
	}
	u.split.Raw(u.raw)
	if err := u.tail(u.split.Raw); err != nil {
		return err
	}
	if err := u.split.Flush(); err != nil {
		return kimg.Wrap("tar-split record", err)
	}
	if err := u.finishDirs(); err != nil {
		return err
	}
	return u.rewriteRecord()
}

// explain names the member that could not be unpacked, and gives a class to what the kernel says of it.
func (u *unpacker) explain(h *tar.Header, err error) error {
	if u.why(nil) != nil || kimg.ClassOf(tarmember.Explain(err)) != kimg.ClassOf(err) {
		return err // the stream's fault
	}
	class := kimg.ClassOf(err)
	var no unix.Errno
	if errors.As(err, &no) {
		switch no {
		case unix.ENAMETOOLONG:
			class = kimg.ErrLimit
		case unix.EINVAL: // an owner, or one in an attribute, that this user namespace does not have
			class = kimg.ErrUnsupported
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EEXIST, unix.EISDIR:
			class = kimg.ErrInvalid
		}
	}
	return kimg.Errorf(class, kimg.Escape(h.Name, 255), "unpacking it: %w", err)
}

// member makes one file.
func (u *unpacker) member(h *tar.Header) error {
	name := clean(h.Name)
	if name == ".." || strings.HasPrefix(name, "../") {
		return kimg.Errorf(kimg.ErrUnsafe, "", "its name leads out of the layer")
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	mark := strings.HasPrefix(base, markPrefix) && !u.o.KeepMarks
	if !mark {
		u.uids[uint32(h.Uid)], u.gids[uint32(h.Gid)] = true, true // tarmember.Check has checked the range
	}
	if regular(h) && h.Size > 0 {
		switch {
		case mark:
			return kimg.Errorf(kimg.ErrUnsupported, "", "a deletion with content")
		case base == ".":
			return kimg.Errorf(kimg.ErrInvalid, "", "a file that is the root directory")
		}
		return u.file(h, dir, base, name)
	}
	if base != "." { // the store decides on the root
		var err error
		if mark {
			err = u.mark(h, dir, base[len(markPrefix):])
		} else {
			err = u.make(h, dir, base, name)
		}
		if err != nil {
			return err
		}
	}
	u.bare(h, name)
	return nil
}

// bare records a member without content.
func (u *unpacker) bare(h *tar.Header, name string) {
	if u.repeated(name, false) {
		u.split.Raw(u.raw)
	} else {
		u.split.File(u.raw, "", h.Name, 0, 0)
	}
}

func regular(h *tar.Header) bool {
	return h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont || h.Typeflag == tar.TypeGNUSparse
}

// clean is the path of a member relative to the root, "." for that itself. It begins with ".." if the name leads out.
func clean(name string) string {
	name = path.Clean(name)
	if name[0] == '/' {
		return path.Clean("./" + name[1:])
	}
	return name
}

// make makes what has no content.
func (u *unpacker) make(h *tar.Header, dir, base, name string) error {
	switch {
	case regular(h):
		return u.file(h, dir, base, name)
	case h.Typeflag == tar.TypeLink:
		return u.link(h, dir, base, name)
	}
	at, err := u.parent(dir, true)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.mkdir(h, at, base, name)
	case tar.TypeSymlink:
		err = u.place(at, base, name, func() error { return unix.Symlinkat(h.Linkname, at, base) })
	case tar.TypeChar, tar.TypeBlock:
		if u.o.UserNS {
			u.o.Log.Debug("a device is left out: a user namespace cannot make it", "name", kimg.Escape(h.Name, 255))
			return nil
		}
		err = u.mknod(h, at, base, name)
	case tar.TypeFifo:
		err = u.mknod(h, at, base, name)
	default:
		return kimg.Errorf(kimg.ErrUnsupported, "", "a member of type %s", kimg.Quote(string(h.Typeflag)))
	}
	if err != nil {
		return err
	}
	return u.finishName(h, at, base)
}

// repeated notes what the record has of a name, and reports whether it had it already.
func (u *unpacker) repeated(name string, content bool) bool {
	key := maphash.String(u.seed, name)
	_, there := u.seen[key]
	u.seen[key] = content
	return there
}

func (u *unpacker) mknod(h *tar.Header, at int, base, name string) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	switch h.Typeflag {
	case tar.TypeChar:
		mode = unix.S_IFCHR
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	}
	if mode != unix.S_IFIFO {
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor >= 1<<12 || h.Devminor >= 1<<20 {
			return kimg.Errorf(kimg.ErrInvalid, "", "no device has the numbers %d and %d", h.Devmajor, h.Devminor)
		}
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	return u.place(at, base, name, func() error { return unix.Mknodat(at, base, mode|0o600, dev) })
}

// link gives a file of this layer another name.
func (u *unpacker) link(h *tar.Header, dir, base, name string) error {
	target := path.Clean("/" + h.Linkname)[1:]
	from, err := u.parent(path.Dir("/" + target)[1:], false)
	if err != nil {
		return fmt.Errorf("the file it is a link to: %w", err)
	}
	last := path.Base(target)
	var to, old unix.Stat_t
	if err := atfs.Lstat(from, last, &to); err != nil {
		return fmt.Errorf("the file it is a link to: %w", err)
	}
	if to.Mode&unix.S_IFMT == unix.S_IFDIR {
		return kimg.Errorf(kimg.ErrInvalid, "", "a hard link to a directory")
	}
	if from, err = unix.Dup(from); err != nil { // the next look-up may close it
		return err
	}
	defer unix.Close(from)
	at, err := u.parent(dir, true)
	if err != nil {
		return err
	}
	if atfs.Lstat(at, base, &old) == nil && old.Ino == to.Ino && old.Dev == to.Dev {
		return nil
	}
	return u.place(at, base, name, func() error { return unix.Linkat(from, last, at, base, 0) })
}
