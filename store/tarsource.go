package store

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/archive"
	"github.com/containers/storage/pkg/chrootarchive"
	"github.com/containers/storage/pkg/unshare"
	"github.com/vbatts/tar-split/tar/asm"
	tarsplit "github.com/vbatts/tar-split/tar/storage"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
)

// maxLayerSize is the largest uncompressed layer, in bytes (failure model).
const maxLayerSize = 64 << 30

// TarSource returns a layer made of a tar someone else wrote: plain, or compressed with gzip, zstd, bzip2 or xz, by its first
// bytes. It is unpacked in a chroot, in a re-executed child of this program (see the package's documentation). Members
// that choose a path or an attribute they must not are class unsafe, a stream cut short is class integrity. The
// stream is read once: the source can be staged or streamed one time.
func TarSource(r io.Reader) LayerSource { return &tarSource{r: r} }

type tarSource struct{ r io.Reader }

// Stream implements LayerSource.
func (t *tarSource) Stream(ctx context.Context, w io.Writer) (bool, error) {
	plain, err := t.plain(ctx)
	if err != nil {
		return false, err
	}
	c := checkTar(ctx, plain)
	_, err = io.Copy(w, c)
	if cerr := c.Close(); cerr != nil {
		err = cerr // why the stream ended says more than that it ended
	}
	if err != nil {
		err = tarError(err)
	}
	return false, err
}

// Stage implements LayerSource with the settings of a plain overlay store.
func (t *tarSource) Stage(ctx context.Context, dir string) (Staged, error) {
	return t.stage(ctx, dir, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat, InUserNS: unshare.IsRootless()})
}

// stage passes each byte once through everything: decompress, check the members, sha256, tar-split, unpack.
func (t *tarSource) stage(ctx context.Context, dir string, o *archive.TarOptions) (_ Staged, err error) {
	plain, err := t.plain(ctx)
	if err != nil {
		return Staged{}, err
	}
	record, err := TarSplitFile(dir)
	if err != nil {
		return Staged{}, errors.Join(err, plain.Close())
	}
	defer func() {
		if err != nil {
			record.Close()
		}
	}()
	owners := newOwners()
	checked := checkTar(ctx, plain)
	checked.owners = owners
	packed := bufio.NewWriterSize(record, 256<<10)
	meter := streamio.NewMeter(nil)
	split, done, err := asm.NewInputTarStreamWithDone(io.TeeReader(checked, meter), tarsplit.NewJSONPacker(packed), nil)
	if err != nil {
		return Staged{}, errors.Join(err, checked.Close())
	}
	err = unpack(split, dir, o)
	if err == nil {
		_, err = io.Copy(io.Discard, split) // the padding after the last member belongs to the digest
	}
	split.Close() // lets the others stop when unpacking stopped early
	if cerr := checked.Close(); cerr != nil {
		err = cerr // why the stream ended says more than that it ended
	}
	if derr := <-done; err == nil {
		err = derr
	}
	if err == nil {
		err = packed.Flush()
	}
	if err != nil {
		return Staged{}, tarError(err)
	}
	uids, gids := owners.lists()
	return Staged{DiffID: meter.Digest(), Size: meter.Size(), UIDs: uids, GIDs: gids, TarSplit: record}, nil
}

// plain removes the compression.
func (t *tarSource) plain(ctx context.Context) (io.ReadCloser, error) {
	if t.r == nil {
		return nil, kimg.Errorf(kimg.ErrInternal, "layer", "a tar stream can be read only once")
	}
	r := bufio.NewReaderSize(streamio.WithContext(ctx, t.r), 256<<10)
	t.r = nil
	if _, err := r.Peek(1); err == io.EOF {
		return nil, kimg.Errorf(kimg.ErrIntegrity, "layer", "the stream is empty")
	} else if err != nil {
		return nil, err
	}
	plain, _, err := compression.NewReader(r)
	if err != nil {
		return nil, tarError(err)
	}
	return plain, nil
}

// unpack runs the library's chrooted untar. Its re-execution panics in programs that have not prepared for it.
func unpack(r io.Reader, dir string, o *archive.TarOptions) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = kimg.Errorf(kimg.ErrInternal, "layer", "cannot unpack: %v (see package store about reexec.Init)", p)
		}
	}()
	return unpackError(chrootarchive.UntarUncompressed(r, dir, o))
}

// unpackError gives a failure of the library's unpacking its class.
func unpackError(err error) error {
	if err == nil {
		return nil
	}
	// The child's errors arrive as text only. What it cannot give a file is an owner, or an attribute that names one, which
	// this user namespace does not have.
	if text := err.Error(); strings.Contains(text, "insufficient UIDs or GIDs") || strings.Contains(text, "lsetxattr") && strings.Contains(text, syscall.EINVAL.Error()) {
		return kimg.Errorf(kimg.ErrUnsupported, "layer", "unpacking: %w", err)
	}
	for _, no := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EPERM, syscall.EACCES, syscall.EEXIST} {
		if strings.Contains(err.Error(), no.Error()) {
			return kimg.Errorf(kimg.ClassOf(no), "layer", "unpacking: %w", err)
		}
	}
	return err
}

// tarError gives what the parts of the pipeline report its class. What has none comes from reading the stream.
func tarError(err error) error {
	if c := kimg.ClassOf(err); c != kimg.ErrInternal {
		return err
	}
	var ours *kimg.Error
	if errors.As(err, &ours) {
		return err
	}
	return kimg.Errorf(kimg.ErrIntegrity, "layer", "not a whole tar stream: %w", err)
}

// TarSplitFile makes the file without a name that [Staged.TarSplit] needs, for a layer that is staged in dir: on the same
// file system, rather than in a temp directory that may be small. The caller closes it, or hands it over.
func TarSplitFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(dir), "tar-split-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
