package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	tarsplit "github.com/vbatts/tar-split/tar/storage"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/store"
)

// A blob of zstd:chunked ends with a table of contents, which says where the frames of each file are and what they are when they are
// unpacked, and with the record of how the tar is packed around the files. So the very tar can be put together of the record, of files
// that layers of the store have, and of those parts of the blob that they do not have; it is then unpacked as every other. Nothing of
// this is trusted: what comes of it must have the diffID of the configuration. containers/storage makes files by the table instead; it
// leaves out devices and FIFOs, and its directories have the time of the pull.

// Section is a part of a blob, in bytes.
type Section struct{ Offset, Length uint64 }

// SectionSource is a [Source] that can also give parts of blobs.
type SectionSource interface {
	// Sections returns the bytes of parts of a blob, one after the other. They are in the order of their offsets and do
	// not overlap. A read that waits ends when ctx is cancelled. Class unsupported when there are only whole blobs.
	Sections(ctx context.Context, blob digest.Digest, parts []Section) (io.ReadCloser, error)
}

// near is how many bytes between two parts are rather fetched than left out.
const near = 4 << 10

// part is a file of a layer, or some of it.
type part struct {
	name string
	size int64
	open func() (*os.File, error) // not nil: a file of the store
	from Section                  // else of the blob; of no length: zeros
}

// parts is a layer that is put together.
type parts struct {
	files  []part
	record []byte            // compressed
	blob   io.Reader         // of the sections
	gaps   map[uint64]uint64 // before the part at an offset
	end    int64             // of the last part of the blob
}

// inParts puts a layer together, when most of it is there. Any error, unless ctx was cancelled, says: fetch it as a whole.
func (p *pipeline) inParts(ctx context.Context, l Layer, e *Meter) (*store.StagedLayer, error) {
	table, record, err := readTable(ctx, l, e)
	if err != nil {
		return nil, err
	}
	t := parts{record: record}
	alike, err := p.tx.Alike(ctx, sums(table))
	if err != nil {
		return nil, err
	}
	defer alike.Close()
	if err := t.plan(ctx, table, alike); err != nil {
		return nil, err
	}
	sections, n := t.sections()
	if n > uint64(l.Size)/2 {
		return nil, kimg.Errorf(kimg.ErrUnsupported, "", "%d of %d bytes are missing", n, l.Size)
	}
	tar := streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error {
		if len(sections) > 0 {
			r, err := l.Sections(ctx, sections)
			if err != nil {
				return err
			}
			defer r.Close()
			t.blob = io.TeeReader(streamio.WithContext(ctx, r), e)
		}
		return t.write(ctx, w)
	})
	defer tar.Close()
	s, err := p.tx.Prepare(ctx, store.TarSource(tar))
	if err == nil && s.DiffID != l.DiffID {
		p.tx.Discard(ctx, s)
		err = kimg.Errorf(kimg.ErrIntegrity, l.Digest.String(), "diff-id: what was put together has %s, the configuration says %s", s.DiffID, l.DiffID)
	}
	return s, err
}

// sums are the files of a table that have content.
func sums(table []tocEntry) (all []store.FileSum) {
	for _, e := range table {
		if e.file() {
			all = append(all, store.FileSum{Name: e.Name, Size: e.Size, Digest: e.Digest})
		}
	}
	return all
}

// plan decides where each file comes from.
func (t *parts) plan(ctx context.Context, table []tocEntry, alike *store.Alike) error {
	for i, e := range table {
		if !e.file() {
			continue
		}
		if err := e.Digest.Validate(); err != nil {
			return kimg.Errorf(kimg.ErrIntegrity, "", "the table of contents: %w", err)
		}
		open, err := alike.Find(ctx, store.FileSum{Name: e.Name, Size: e.Size, Digest: e.Digest})
		if err != nil {
			return err
		}
		if open != nil {
			t.files = append(t.files, part{name: e.Name, size: e.Size, open: open})
			continue
		}
		chunks := []tocEntry{e}
		for _, c := range table[i+1:] {
			if c.Type != "chunk" {
				break
			}
			chunks = append(chunks, c)
		}
		if err := t.chunks(e, chunks); err != nil {
			return err
		}
	}
	return nil
}

// chunks are the parts of a file that is fetched.
func (t *parts) chunks(e tocEntry, all []tocEntry) error {
	left := e.Size
	for i, c := range all {
		one := part{name: e.Name, size: left}
		if i+1 < len(all) || c.ChunkSize > 0 {
			one.size = c.ChunkSize
		}
		end := e.EndOffset
		if i+1 < len(all) {
			end = all[i+1].Offset
		}
		data := c.ChunkType != "zeros"
		if left -= one.size; one.size <= 0 || left < 0 || data && (c.Offset < t.end || end <= c.Offset) {
			return kimg.Errorf(kimg.ErrIntegrity, kimg.Escape(e.Name, 255), "the table of contents contradicts itself")
		}
		if data {
			one.from, t.end = Section{uint64(c.Offset), uint64(end - c.Offset)}, end
		}
		t.files = append(t.files, one)
	}
	if left > 0 {
		return kimg.Errorf(kimg.ErrIntegrity, kimg.Escape(e.Name, 255), "the table of contents does not have all of it")
	}
	return nil
}

// sections are what is fetched, and how many bytes. What lies between two parts that are near is fetched, too, and skipped.
func (t *parts) sections() (all []Section, bytes uint64) {
	t.gaps = map[uint64]uint64{}
	for _, f := range t.files {
		if f.from.Length == 0 {
			continue
		}
		last := len(all) - 1
		if last >= 0 && f.from.Offset-all[last].Offset-all[last].Length < near {
			t.gaps[f.from.Offset] = f.from.Offset - all[last].Offset - all[last].Length
			all[last].Length = f.from.Offset + f.from.Length - all[last].Offset
		} else {
			all = append(all, f.from)
		}
	}
	for _, s := range all {
		bytes += s.Length
	}
	return all, bytes
}

// write writes the tar.
func (t *parts) write(ctx context.Context, w io.Writer) error {
	record, err := decoder(bytes.NewReader(t.record))
	if err != nil {
		return err
	}
	defer record.Close()
	frames, err := decoder(nil)
	if err != nil {
		return err
	}
	defer frames.Close()
	bounded := &io.LimitedReader{R: record}
	for entries := json.NewDecoder(bounded); ; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var e tarsplit.Entry
		bounded.N = maxEntry // more
		err := entries.Decode(&e)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case e.Type == tarsplit.SegmentType:
			if _, err := w.Write(e.Payload); err != nil {
				return err
			}
			continue
		}
		for left := e.Size; left > 0; {
			if len(t.files) == 0 || t.files[0].name != e.GetName() || t.files[0].size > left {
				return kimg.Errorf(kimg.ErrIntegrity, kimg.Escape(e.GetName(), 255), "record and table contradict each other")
			}
			f := t.files[0]
			t.files, left = t.files[1:], left-f.size
			if err := t.file(f, w, frames); err != nil {
				return kimg.Wrap(kimg.Escape(f.name, 255), err)
			}
		}
	}
}

// file writes one part.
func (t *parts) file(f part, w io.Writer, frames *zstd.Decoder) error {
	switch {
	case f.open != nil:
		file, err := f.open()
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.CopyN(w, file, f.size)
		return err
	case f.from.Length == 0:
		_, err := io.CopyN(w, zeros{}, f.size)
		return err
	}
	if _, err := io.CopyN(io.Discard, t.blob, int64(t.gaps[f.from.Offset])); err != nil {
		return err
	}
	src := io.LimitReader(t.blob, int64(f.from.Length))
	if err := frames.Reset(src); err != nil {
		return err
	}
	if _, err := io.CopyN(w, frames, f.size); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, src)
	return err
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
