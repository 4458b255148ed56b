package rootfs

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/tarmember"
	"github.com/kimg/kimg/layerdiff"
)

// Proof is what a tree of files is.
type Proof struct {
	Digest  digest.Digest // as the package comment defines it
	Entries int           // names in the tree
	// Implied lists the directories whose time is not counted, as "usr/share": those the topmost layer that has them only
	// implies. Who computes the digest of the mounted tree gives them in Options.
	Implied []string
}

// Options say how a tree is looked at.
type Options struct {
	// UIDs and GIDs are the id maps of the container a tree belongs to; empty is identity. Layers hold the container's ids
	// already.
	UIDs, GIDs layerdiff.IDMap
	// Implied lists the directories of a tree whose time is not counted, as the Proof of its layers does.
	Implied []string
	// MaxNames is how many names a tree of layers may have, because each takes some 200 bytes of memory; 0 is 750,000.
	MaxNames int
}

// Opener opens a layer as an uncompressed tar stream.
type Opener = func(context.Context) (io.ReadCloser, error)

// Layers returns the proof of an image from its layers, base first. Each is opened once, in order, read to its end and
// closed. Nothing of the content is kept: memory grows with the number of names, which Options
// bound (class limit). A layer that is no tar or cut short, or has a member that package tarmember or the package comment refuses, is
// an error that names the layer by its number; the base is 1.
func Layers(ctx context.Context, layers []Opener, o Options) (Proof, error) {
	m := newMerged(cmp.Or(o.MaxNames, 750_000))
	if err := m.applyAll(ctx, layers); err != nil {
		return Proof{}, err
	}
	r := newRecorder()
	dirs := m.record(r)
	return Proof{Digest: r.digest(), Entries: r.entries, Implied: dirs}, nil
}

func (m *merged) applyAll(ctx context.Context, layers []Opener) error {
	buf := make([]byte, 64<<10)
	for i, open := range layers {
		m.layer = int32(i + 1)
		if err := apply(ctx, m, open, buf); err != nil {
			return kimg.Wrap(fmt.Sprintf("layer %d", i+1), err)
		}
	}
	return nil
}

// apply puts one layer on the tree.
func apply(ctx context.Context, m *merged, open Opener, buf []byte) (err error) {
	stream, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	tr := tar.NewReader(stream)
	content := streamio.WithContext(ctx, tr) // a hole is no reading
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil && n == tarmember.MaxMembers {
			return kimg.Errorf(kimg.ErrLimit, "", "more than %d members", tarmember.MaxMembers)
		}
		if err == nil {
			err = tarmember.Check(h)
		}
		if err == nil {
			err = member(m, h, content, buf)
		}
		if err != nil {
			return tarmember.Explain(err)
		}
	}
	// What follows the end of the tar belongs to the stream, whose reader may verify its digest.
	_, err = io.CopyBuffer(io.Discard, onlyReader{stream}, buf)
	return err
}

// onlyReader hides other methods, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

const (
	whiteout = ".wh."
	aufs     = ".wh..wh."
	opaque   = ".wh..wh..opq"
)

// member applies one member.
func member(m *merged, h *tar.Header, content io.Reader, buf []byte) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	path, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(path) == 0 {
		if h.Typeflag != tar.TypeDir {
			return kimg.Errorf(kimg.ErrInvalid, "/", "the root is no directory")
		}
		return nil
	}
	if slices.ContainsFunc(path, func(s string) bool { return strings.HasPrefix(s, whiteout) }) {
		return mark(m, path)
	}
	if h.Typeflag == tar.TypeLink {
		target, err := split(h.Linkname)
		if err != nil {
			return err
		}
		return m.link(path, target)
	}
	f, err := m.describe(h, content, buf)
	if err != nil {
		return err
	}
	if f.kind == 'd' {
		return m.put(path, newDir(f, m.layer))
	}
	n := &node{layer: m.layer}
	if m.spool != nil {
		n.kept = &f
	} else {
		n.sum = f.sum()
	}
	return m.put(path, n)
}

// mark applies a member whose name is a message to whoever unpacks the layer.
func mark(m *merged, path []string) error {
	dir, base := path[:len(path)-1], path[len(path)-1]
	if slices.ContainsFunc(dir, func(s string) bool { return strings.HasPrefix(s, aufs) }) {
		return nil
	}
	gone, ok := strings.CutPrefix(base, whiteout)
	if !ok || slices.ContainsFunc(dir, func(s string) bool { return strings.HasPrefix(s, whiteout) }) {
		return kimg.Errorf(kimg.ErrInvalid, show(path), "a member lies below a whiteout")
	}
	switch {
	case base == opaque:
		m.hide(dir, "")
	case strings.HasPrefix(base, aufs):
	case gone == "" || gone == "." || gone == "..":
		return kimg.Errorf(kimg.ErrUnsafe, show(path), "a whiteout of nothing or of a directory above")
	default:
		m.hide(dir, gone)
	}
	return nil
}

// describe reads a member.
func (m *merged) describe(h *tar.Header, content io.Reader, buf []byte) (file, error) {
	f := file{mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: h.ModTime.Unix()}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		f.kind = 'f'
		if tarmember.Sparse(h) {
			if m.holey += h.Size; m.holey > maxContent || m.holey < 0 {
				return file{}, kimg.Errorf(kimg.ErrLimit, kimg.Escape(h.Name, 255), "files with holes of more than %d bytes together", int64(maxContent))
			}
		}
		if m.spool != nil {
			f.at, f.size = m.spool.n, h.Size
			if _, err := io.CopyBuffer(m.spool, content, buf); err != nil {
				return file{}, err
			}
			break
		}
		sum := sha256.New()
		if _, err := io.CopyBuffer(sum, content, buf); err != nil {
			return file{}, err
		}
		f.content = string(sum.Sum(nil))
	case tar.TypeDir:
		f.kind = 'd'
	case tar.TypeSymlink:
		f.kind, f.content = 'l', h.Linkname
	case tar.TypeFifo:
		f.kind = 'p'
	case tar.TypeChar, tar.TypeBlock:
		f.kind, f.content = map[byte]byte{tar.TypeChar: 'c', tar.TypeBlock: 'b'}[h.Typeflag], device(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
			return file{}, kimg.Errorf(kimg.ErrUnsafe, kimg.Escape(h.Name, 255), "the device with which overlayfs marks deletions")
		}
	default:
		return file{}, kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(h.Name, 255), "a member of type %q", h.Typeflag)
	}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, tarmember.Xattr); ok && layerdiff.InLayers(attr) {
			f.xattrs = append(f.xattrs, atfs.Xattr{Name: attr, Value: value})
		}
	}
	slices.SortFunc(f.xattrs, func(a, b atfs.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return f, nil
}

// split cuts a name into components. It may begin with a slash, as names in tars do; ".." is refused.
func split(path string) (parts []string, err error) {
	for p := range strings.SplitSeq(path, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return nil, kimg.Errorf(kimg.ErrUnsafe, kimg.Escape(path, 255), "a name with a component \"..\"")
		case len(p) > 255:
			return nil, kimg.Errorf(kimg.ErrLimit, kimg.Escape(path, 255), "a component of %d bytes, more than 255", len(p))
		default:
			parts = append(parts, p)
		}
	}
	return parts, nil
}
