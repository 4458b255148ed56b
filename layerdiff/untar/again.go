//go:build linux

package untar

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"io"
	"os"

	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/streamio"
)

// A record names each file once: the tar is put together again from the files that are there. Of a member that a later one has
// replaced, and of one with holes, the record keeps the content itself, as it is in the tar. It ends up in memory when the record is
// stored, so that it is bounded.
const (
	maxSaved = 64 << 20 // bytes in all
	piece    = 64 << 10
)

// again is a name that came more than once.
type again struct {
	content bool       // and a later member has content
	old     []*os.File // earlier content, in the order it came, without a name by now
}

func (a *again) close() {
	for _, f := range a.old {
		f.Close()
	}
}

func (u *unpacker) twice(name string) *again {
	if u.again[name] == nil {
		u.again[name] = &again{}
	}
	return u.again[name]
}

// save keeps the content of a file that is about to be replaced, if the record counts on it.
func (u *unpacker) save(at int, base, name string, st *unix.Stat_t) error {
	if u.linked {
		return kimg.Errorf(kimg.ErrUnsupported, "", "it replaces a file in a layer that writes through its own links")
	}
	if !u.seen[maphash.String(u.seed, name)] {
		return nil // another name of a file, under which the record does not look for it
	}
	if err := u.keepContent(st.Size); err != nil {
		return err
	}
	fd, err := atfs.OpenFile(at, base)
	if err != nil {
		return err
	}
	a := u.twice(name)
	a.old = append(a.old, os.NewFile(uintptr(fd), base))
	return nil
}

// keepContent counts content that the record keeps itself.
func (u *unpacker) keepContent(n int64) error {
	if u.saved += n; u.saved > maxSaved {
		return kimg.Errorf(kimg.ErrUnsupported, "", "more than %d bytes are in files with holes, or replaced by later members: the tar could not be given back", maxSaved)
	}
	return nil
}

// rewriteRecord puts the content of replaced members into the record.
func (u *unpacker) rewriteRecord() error {
	if len(u.again) == 0 {
		return nil
	}
	old := u.record
	defer old.Close()
	to, err := u.o.Record()
	if err != nil {
		return err
	}
	u.record = to
	if _, err := old.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in, out := json.NewDecoder(old), storage.NewJSONPacker(to)
	for {
		if err := check(u.ctx); err != nil {
			return err
		}
		var e storage.Entry
		if err := in.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := u.rewrite(out, e); err != nil {
			return err
		}
	}
}

func (u *unpacker) rewrite(out storage.Packer, e storage.Entry) error {
	a := u.again[clean(e.GetName())]
	switch {
	case e.Type != storage.FileType || a == nil || e.Size > 0 && len(a.old) == 0:
	case e.Size == 0 && a.content:
		return nil
	case e.Size > 0:
		f := a.old[0]
		a.old = a.old[1:]
		defer f.Close()
		for left := e.Size; left > 0; {
			var b bytes.Buffer
			n, err := streamio.Copy(&b, io.LimitReader(f, min(left, piece)))
			if err != nil || n == 0 {
				return kimg.Errorf(kimg.ErrInternal, "", "content that was replaced is cut short: %w", err)
			}
			left -= n
			if _, err := out.AddEntry(storage.Entry{Type: storage.SegmentType, Payload: b.Bytes()}); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := out.AddEntry(e)
	return err
}
