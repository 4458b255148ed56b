package store

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/archive"
	"github.com/opencontainers/go-digest"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
	crc "github.com/kimg/kimg/internal/tarsplit"
)

// ExportLayer writes an image layer as the uncompressed tar it came from, byte for byte. It holds no lock while the data
// streams; the caller keeps the layer from being removed, by the image or container that stands on it. Only when it returns nil
// is what was written known to be right: every file was checked against its checksum and the whole against the layer's
// digest (class integrity otherwise). Layers of additional stores and without a tar-split record are
// read through the library, under its lock.
func (s *Store) ExportLayer(ctx context.Context, layerID string, w io.Writer) error {
	l, err := s.st.Layer(layerID)
	if err != nil {
		return wrap("layer "+kimg.Quote(layerID), err)
	}
	return s.exportLayer(ctx, l, w)
}

func (s *Store) exportLayer(ctx context.Context, l *storage.Layer, w io.Writer) error {
	if err := check(ctx); err != nil {
		return err
	}
	wanted, err := s.diffIDs(ctx, l)
	if err != nil {
		return err
	}
	m := streamio.NewSpread(w)
	err = s.assemble(ctx, l, m)
	again := errors.Is(err, errNoRecord)
	if again {
		err = s.regenerate(ctx, l, m)
	}
	got, werr := m.End()
	if err == nil {
		err = werr
	}
	switch {
	case err != nil:
		return wrap("layer "+l.ID, err)
	case slices.Contains(wanted, got):
		return nil
	case again && !l.ReadOnly:
		return kimg.Errorf(kimg.ErrIntegrity, "layer "+l.ID, "the store has not kept how its tar was packed (as after a pull in parts), and packing it again gives %s instead of %s: pull the image again as a whole", got, wanted[0])
	}
	return kimg.Errorf(kimg.ErrIntegrity, "layer "+l.ID, "its content has digest %s, the record says %s", got, wanted[0])
}

// diffIDs returns the digests that a layer's tar may have: the one in its record. Of a layer that was pulled in parts the record has none;
// then each image that stands on it names one in its configuration, and whoever reads the layer for an image compares with that
// image's.
func (s *Store) diffIDs(ctx context.Context, l *storage.Layer) ([]digest.Digest, error) {
	if l.UncompressedDigest != "" {
		return []digest.Digest{l.UncompressedDigest}, nil
	}
	images, err := s.Images(ctx)
	if err != nil {
		return nil, err
	}
	var found []digest.Digest
	for _, img := range images {
		chain, err := img.Layers(ctx)
		at := slices.IndexFunc(chain, func(i LayerInfo) bool { return i.ID == l.ID })
		if err != nil || at < 0 {
			continue // not about this layer; a damaged image is for whoever asks for that
		}
		config, err := img.Config(ctx)
		if err != nil {
			return nil, err
		}
		var says struct {
			RootFS struct {
				DiffIDs []digest.Digest `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if err := json.Unmarshal(config, &says); err != nil || len(says.RootFS.DiffIDs) != len(chain) {
			return nil, kimg.Errorf(kimg.ErrDamaged, img.label(), "%d layers where the configuration has %d; run kimg check", len(chain), len(says.RootFS.DiffIDs))
		}
		found = append(found, says.RootFS.DiffIDs[at])
	}
	if len(found) == 0 {
		return nil, kimg.Errorf(kimg.ErrUnsupported, "layer "+l.ID, "neither the store nor an image says which digest it must have (it was pulled in parts), so it could not be checked")
	}
	return found, nil
}

// errNoRecord says that there is no tar-split record to assemble from.
var errNoRecord = errors.New("no tar-split record")

// assemble puts the tar together from its record (headers and padding) and the files on disk.
func (s *Store) assemble(ctx context.Context, l *storage.Layer, w io.Writer) error {
	if l.ReadOnly || s.canWalk() != nil {
		return errNoRecord // lies under another root, or its files are not what a plain overlay has
	}
	record, err := safeopen.Open(filepath.Join(s.recordDir(s.imageRoot(), "layers"), l.ID+".tar-split.gz"))
	if errors.Is(err, os.ErrNotExist) {
		return errNoRecord
	}
	if err != nil {
		return err
	}
	defer record.Close()
	z, err := gzip.NewReader(bufio.NewReader(record))
	if err != nil {
		return kimg.Errorf(kimg.ErrIntegrity, "", "tar-split record: %w", err)
	}
	dirs, err := s.dirsOf(l.ID)
	if err != nil {
		return err
	}
	files, err := openDirs(append([]string{dirs.Upper}, dirs.Lowers...))
	if err != nil {
		return err
	}
	defer files.close()
	a := assembler{files: files, w: w, buf: make([]byte, 256<<10)}
	for entries := tarsplit.NewJSONUnpacker(z); ; {
		if err := check(ctx); err != nil {
			return err
		}
		e, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return kimg.Errorf(kimg.ErrIntegrity, "", "tar-split record: %w", err)
		}
		if err := a.entry(ctx, e); err != nil {
			return err
		}
	}
}

type assembler struct {
	files dirFiles
	w     io.Writer
	buf   []byte
}

func (a *assembler) entry(ctx context.Context, e *tarsplit.Entry) error {
	switch {
	case e.Type == tarsplit.SegmentType:
		_, err := a.w.Write(e.Payload)
		return err
	case e.Size <= 0:
		return nil
	}
	name := e.GetName()
	fd, err := a.files.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	sum := uint64(0)
	for left := e.Size; left > 0; {
		if err := check(ctx); err != nil {
			return err
		}
		n, err := atfs.Read(fd, a.buf[:min(left, int64(len(a.buf)))], left)
		if err != nil {
			return &os.PathError{Op: "read", Path: kimg.Escape(name, 255), Err: err}
		}
		if n == 0 {
			return notAsMade(name)
		}
		sum, left = crc.Update(sum, a.buf[:n]), left-int64(n)
		if _, err := a.w.Write(a.buf[:n]); err != nil {
			return err
		}
	}
	if !bytes.Equal(binary.BigEndian.AppendUint64(nil, sum), e.Payload) {
		return notAsMade(name)
	}
	return nil
}

func notAsMade(name string) error {
	return kimg.Errorf(kimg.ErrIntegrity, kimg.Escape(name, 255), "is not the file the layer was made with")
}

// regenerate lets the library make the tar, under its own locks. Without a record the bytes can differ from the
// original; the digest tells.
func (s *Store) regenerate(ctx context.Context, l *storage.Layer, w io.Writer) error {
	plain := archive.Uncompressed
	r, err := s.st.Diff("", l.ID, &storage.DiffOptions{Compression: &plain})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, streamio.WithContext(ctx, r))
	return err
}
