package rootfs

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/tarmember"
	"github.com/kimg/kimg/layerdiff"
)

// maxContent is how much content an image may have: kept at once, or in files with holes.
const maxContent = 256 << 30

// Write writes what layers show as an uncompressed tar, in the form in which [layerdiff.Write] writes the same tree: equal trees,
// equal bytes. An implied directory has the time that the layers below say, or 0. Each layer is opened once, in order, read to its end and closed, and nothing
// is written before all were. Until then the content of their files lies in temp, which the caller gives empty and removes; memory
// is as for [Layers], and so are limits and errors. LeftOut of the Blob is always empty.
func Write(ctx context.Context, w io.Writer, temp *os.File, layers []Opener, o Options) (layerdiff.Blob, error) {
	m := newMerged(cmp.Or(o.MaxNames, 750_000))
	m.spool = &spool{w: bufio.NewWriterSize(temp, 1<<20)}
	err := m.applyAll(ctx, layers)
	if err == nil {
		err = m.spool.w.Flush()
	}
	if err != nil {
		return layerdiff.Blob{}, err
	}
	out := bufio.NewWriterSize(w, 1<<20)
	sum := streamio.NewMeter(out)
	blob := layerdiff.Blob{}
	t := tar.NewWriter(sum)
	err = m.walk(func(path string, n *node, first string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		blob.Entries++
		return kimg.Wrap(kimg.Escape("/"+path, 255), n.write(ctx, t, path, first, temp))
	})
	if err == nil {
		err = t.Close()
	}
	if err == nil {
		err = out.Flush()
	}
	blob.DiffID, blob.Size, blob.Empty = sum.Digest(), sum.Size(), blob.Entries == 0
	return blob, err
}

// write writes one name.
func (n *node) write(ctx context.Context, t *tar.Writer, path, first string, temp *os.File) error {
	f := n.kept
	if n.dir != nil {
		f = &n.dir.file
	}
	h := tar.Header{Name: path, Mode: int64(f.mode), Uid: int(f.uid), Gid: int(f.gid), ModTime: time.Unix(f.mtime, 0)}
	for _, x := range f.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[tarmember.Xattr+x.Name] = x.Value
	}
	switch f.kind {
	case 'd':
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case 'f':
		h.Typeflag, h.Size = tar.TypeReg, f.size
	case 'l':
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.content, 0o777
	case 'p':
		h.Typeflag = tar.TypeFifo
	default:
		h.Typeflag = map[byte]byte{'c': tar.TypeChar, 'b': tar.TypeBlock}[f.kind]
		if _, err := fmt.Sscanf(f.content, "%d,%d", &h.Devmajor, &h.Devminor); err != nil {
			return kimg.Errorf(kimg.ErrInternal, "", "device %s", f.content)
		}
	}
	if first != "" {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	}
	if err := t.WriteHeader(&h); err != nil {
		return tarmember.Explain(err)
	}
	if h.Size == 0 {
		return nil
	}
	_, err := streamio.Copy(t, streamio.WithContext(ctx, io.NewSectionReader(temp, f.at, f.size)))
	return err
}

// spool takes the content of files, one after another.
type spool struct {
	w *bufio.Writer
	n int64
}

func (s *spool) Write(p []byte) (int, error) {
	if s.n += int64(len(p)); s.n > maxContent {
		return 0, kimg.Errorf(kimg.ErrLimit, "", "more than %d bytes in files", int64(maxContent))
	}
	return s.w.Write(p)
}
