package archive

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/layout"
)

// Limits of an archive's members (failure model).
const (
	maxMembers    = 2_000_000
	maxMemberName = 4096      // bytes of a name or a link
	maxIndex      = 128 << 20 // bytes of memory for all names together
	maxMember     = 64 << 30  // bytes of one member: an uncompressed layer
	maxHops       = 8         // links from one member to the next
)

// tarFile is a plain tar whose members can be read in any order.
type tarFile struct {
	f       *os.File
	members map[string]member
	hashed  sync.Map // offset of a member -> its digest
}

// member is where a member's bytes are.
type member struct {
	kind         byte // tar.TypeReg, TypeSymlink, TypeLink; else something that has no bytes
	sparse       bool
	link         string
	offset, size int64
}

// openTar opens and indexes an archive.
func openTar(ctx context.Context, path, tempDir string) (*tarFile, error) {
	f, err := safeopen.Open(path)
	if err != nil {
		return nil, err
	}
	return indexed(ctx, f, tempDir)
}

// indexed unpacks and indexes an archive, and closes f when that fails.
func indexed(ctx context.Context, f *os.File, tempDir string) (*tarFile, error) {
	f, err := unpack(ctx, f, tempDir)
	if err != nil {
		return nil, err
	}
	t := &tarFile{f: f}
	if t.members, err = index(ctx, f); err == nil {
		err = t.agree(ctx)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

func (t *tarFile) close() error { return t.f.Close() }

// index reads all headers of a tar and skips what is between them.
func index(ctx context.Context, f *os.File) (map[string]member, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	section := io.NewSectionReader(f, 0, info.Size())
	tr := tar.NewReader(section)
	members, memory := map[string]member{}, 0
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return members, nil
		}
		if err != nil {
			return nil, tarError(err)
		}
		if n == maxMembers {
			return nil, kimg.Errorf(kimg.ErrLimit, "", "more than %d members", maxMembers)
		}
		if len(h.Name) > maxMemberName || len(h.Linkname) > maxMemberName {
			return nil, kimg.Errorf(kimg.ErrLimit, kimg.Escape(h.Name, 80), "a name of more than %d bytes", maxMemberName)
		}
		if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := path.Clean(h.Name)
		if memory += len(name) + len(h.Linkname) + 128; memory > maxIndex {
			return nil, kimg.Errorf(kimg.ErrLimit, "", "the names of the members need more than %d bytes", maxIndex)
		}
		if _, twice := members[name]; twice {
			return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Escape(name, 200), "ambiguous: two members of one name")
		}
		at, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		members[name] = newMember(h, at)
	}
}

func newMember(h *tar.Header, at int64) member {
	m := member{kind: h.Typeflag, link: h.Linkname, offset: at, size: h.Size, sparse: h.Typeflag == tar.TypeGNUSparse}
	for key := range h.PAXRecords {
		m.sparse = m.sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	if h.Typeflag == tar.TypeCont || m.sparse {
		m.kind = tar.TypeReg
	}
	return m
}

func tarError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return kimg.Errorf(kimg.ErrIntegrity, "", "the archive is cut short")
	case errors.Is(err, tar.ErrFieldTooLong):
		return kimg.Errorf(kimg.ErrLimit, "", "a member's headers are too long")
	case kimg.ClassOf(err) == kimg.ErrInternal:
		return kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: not a tar archive")
	}
	return err
}

// find returns the regular member that a name leads to, along links inside the archive. Class notfound when there is none.
func (t *tarFile) find(name string) (member, error) {
	object := kimg.Escape(name, 200)
	for range maxHops {
		if !filepath.IsLocal(name) {
			return member{}, kimg.Errorf(kimg.ErrUnsafe, object, "leads out of the archive")
		}
		m, ok := t.members[path.Clean(name)]
		switch {
		case !ok:
			return member{}, kimg.Errorf(kimg.ErrNotFound, object, "not in the archive")
		case m.sparse:
			return member{}, kimg.Errorf(kimg.ErrUnsupported, object, "a sparse member")
		case m.kind == tar.TypeReg && m.size > maxMember:
			return member{}, kimg.Errorf(kimg.ErrLimit, object, "too-big: a member of %d bytes, more than %d", m.size, int64(maxMember))
		case m.kind == tar.TypeReg:
			return m, nil
		case m.kind == tar.TypeSymlink && path.IsAbs(m.link):
			return member{}, kimg.Errorf(kimg.ErrUnsafe, object, "a link out of the archive")
		case m.kind == tar.TypeSymlink:
			name = path.Join(path.Dir(name), m.link)
		case m.kind == tar.TypeLink:
			name = m.link
		default:
			return member{}, kimg.Errorf(kimg.ErrUnsafe, object, "not a regular member")
		}
	}
	return member{}, kimg.Errorf(kimg.ErrInvalid, object, "more than %d links, one after the other", maxHops)
}

func (t *tarFile) findBlob(d digest.Digest) (member, error) {
	m, err := t.find(layout.BlobPath(d))
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return m, missing(d)
	}
	return m, err
}

func (t *tarFile) reader(m member) *io.SectionReader {
	return io.NewSectionReader(t.f, m.offset, m.size)
}

// read returns the whole of a member of at most max bytes.
func (t *tarFile) read(name string, max int64) ([]byte, error) {
	m, err := t.find(name)
	if err != nil {
		return nil, err
	}
	if err := strict.Size(kimg.Escape(name, 200), m.size, max); err != nil {
		return nil, err
	}
	return t.bytes(m)
}

func (t *tarFile) bytes(m member) ([]byte, error) {
	data := make([]byte, m.size)
	if _, err := io.ReadFull(t.reader(m), data); err != nil {
		return nil, tarError(err)
	}
	return data, nil
}

// document reads a manifest and checks it against the digest that named it.
func (t *tarFile) document(m member, d digest.Digest) ([]byte, error) {
	if err := strict.Size(d.String(), m.size, strict.MaxDocument); err != nil {
		return nil, err
	}
	data, err := t.bytes(m)
	if err != nil {
		return nil, err
	}
	return data, streamio.Check(data, d)
}
