package layerdiff

import (
	"archive/tar"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// fileID names a file on the host.
type fileID struct{ dev, ino uint64 }

func fileIDOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// firstName is where a file with several names is in the layer.
type firstName struct {
	path  string // without a slash in front
	names uint64 // how many of its names are still to come, at most
}

// emitter puts tar members into order: it alone writes to the sink and the tar-split record.
type emitter struct {
	x     *run
	b     *batch
	from  int // the part of the batch's buffer that is complete but not passed on yet
	to    int
	links map[fileID]firstName
	uids  map[uint32]bool
	gids  map[uint32]bool
	blob  Blob
	buf   []byte // for one header
}

// batch emits a batch.
func (m *emitter) batch(b *batch) error {
	m.b, m.from, m.to = b, 0, 0
	for i := range b.entries {
		if err := m.x.cancelled(); err != nil {
			return err
		}
		if err := m.entry(&b.entries[i]); err != nil {
			return err
		}
	}
	if b.err != nil {
		return b.err
	}
	return m.pass()
}

// pass hands on what is complete in the batch's buffer.
func (m *emitter) pass() error {
	data := m.b.buf[m.from:m.to]
	m.from = m.to
	return m.x.out(data)
}

func (m *emitter) entry(e *entry) error {
	if e.reason != "" {
		m.blob.LeftOut = append(m.blob.LeftOut, Skip{Path: e.path(), Reason: e.reason})
	}
	switch e.kind {
	case kindNone, kindLeftOut:
		return nil
	case kindDir:
		if e.sub.same {
			return nil
		}
		return m.dir(e.sub, e)
	}
	if err := m.parents(e.dir); err != nil {
		return err
	}
	if e.kind == kindWhiteout {
		h := e.header()
		return m.member(e, &h)
	}
	m.owner(e.uid, e.gid)
	if e.linked() {
		return m.linked(e)
	}
	if e.kind == kindFile && e.head < 0 {
		return m.stream(e)
	}
	h := e.header()
	return m.member(e, &h)
}

// parents emits the directories above that are in the layer only because something in them is.
func (m *emitter) parents(d *dir) error {
	if d.written {
		return nil
	}
	if err := m.parents(d.parent); err != nil {
		return err
	}
	return m.dir(d, nil)
}

// dir emits a directory; e is its entry if it has one with a header in the batch.
func (m *emitter) dir(d *dir, e *entry) error {
	if err := m.parents(d.parent); err != nil {
		return err
	}
	if m.x.stage != nil {
		if _, err := m.x.stage.dir(d); err != nil {
			return err
		}
	}
	d.written = true
	m.owner(d.uid, d.gid)
	h := d.header()
	return m.member(e, &h)
}

// member emits a tar member without content, or with the content that is in the batch's buffer. e may be nil or have
// nothing there.
func (m *emitter) member(e *entry, h *header) error {
	if err := m.count(); err != nil {
		return err
	}
	if e != nil && e.head >= 0 {
		if e.head != m.to {
			if err := m.pass(); err != nil {
				return err
			}
			m.from = e.head
		}
		m.to = e.end
		m.x.split.Member(m.b.buf[e.head:e.body], h.dir, h.base, h.size, e.crc)
		return nil
	}
	if err := m.header(h); err != nil {
		return err
	}
	m.x.split.Member(m.buf, h.dir, h.base, 0, 0)
	return nil
}

// count counts one tar member.
func (m *emitter) count() error {
	if m.blob.Entries++; m.blob.Entries > maxEntries {
		return kimg.Errorf(kimg.ErrLimit, "", "more than %d entries in one layer", maxEntries)
	}
	return nil
}

// header passes on a header that is in no batch and leaves it in buf.
func (m *emitter) header(h *header) (err error) {
	if err := m.pass(); err != nil {
		return err
	}
	m.buf, err = appendHeader(m.buf[:0], h)
	if err != nil {
		return kimg.Wrap(kimg.Escape("/"+h.dir+h.base, 256), err)
	}
	return m.x.sink.add(m.buf)
}

// linked emits a file with several names: the first is the file, the others are links to it.
func (m *emitter) linked(e *entry) error {
	id := fileIDOf(&e.st)
	first, found := m.links[id]
	if !found {
		m.links[id] = firstName{path: e.dir.path + e.name, names: uint64(e.st.Nlink) - 1}
		if e.kind == kindFile {
			return m.stream(e)
		}
		if m.x.stage != nil {
			if err := m.x.stage.node(e); err != nil {
				return err
			}
		}
		h := e.header()
		return m.member(nil, &h)
	}
	// Once its last name was seen a file is forgotten, so that the map does not grow with the tree. Staging with hard
	// links adds names, hence "at most".
	if first.names--; first.names == 0 {
		delete(m.links, id)
	} else {
		m.links[id] = first
	}
	if m.x.stage != nil {
		if err := m.x.stage.link(e, first.path); err != nil {
			return err
		}
	}
	h := e.header()
	h.typ, h.link, h.size = tar.TypeLink, first.path, 0
	return m.member(nil, &h)
}

// owner notes an owner.
func (m *emitter) owner(uid, gid uint32) {
	if !m.uids[uid] {
		m.uids[uid] = true
	}
	if !m.gids[gid] {
		m.gids[gid] = true
	}
}

// finish writes the end of the archive and describes the layer.
func (m *emitter) finish() (Blob, error) {
	x := m.x
	trailer := zeros[:2*tarBlock]
	err := x.sink.add(trailer)
	if err == nil {
		err = x.sink.flush()
	}
	if err != nil {
		return Blob{}, err
	}
	if err := x.split.Close(trailer); err != nil {
		return Blob{}, kimg.Wrap("tar-split record", err)
	}
	m.blob.Size = x.sink.n
	m.blob.Empty = m.blob.Entries == 0
	m.blob.UIDs, m.blob.GIDs = sorted(m.uids), sorted(m.gids)
	m.blob.DiffID = x.sink.close()
	return m.blob, nil
}

func sorted(set map[uint32]bool) []uint32 {
	out := make([]uint32, 0, len(set))
	for id := range set {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func closeRead(fd int) { _ = unix.Close(fd) } // opened for reading: nothing to lose
