package store

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/unshare"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff/untar"
)

// TarSource returns a layer made of a tar someone else wrote: plain, or compressed with gzip, zstd, bzip2 or xz, by its first
// bytes. Package untar says how it is unpacked and what is refused; a store of whole trees lets the library unpack what was checked.
// An [io.Seeker] that can seek, such as a file, is read from where it was each time the source is staged or streamed; of any other stream
// the second time is class busy: somebody took away what was made of it. No byte at all is class integrity. One with a method Stop has it
// called when unpacking has failed and a Read may be waiting.
func TarSource(r io.Reader) LayerSource { return &tarSource{r: r} }

// BlobSource is [TarSource] of a blob that is known by its digest: no byte at all is a layer without anything, as for other tools.
func BlobSource(r io.Reader) LayerSource { return &tarSource{r: r, known: true} }

type tarSource struct {
	r     io.Reader
	known bool // it may be empty
	begun bool
	start int64 // where r was; -1: it cannot seek
}

// begin goes to the beginning.
func (t *tarSource) begin() error {
	s, ok := t.r.(io.Seeker)
	if !t.begun {
		t.begun, t.start = true, -1
		if ok {
			if at, err := s.Seek(0, io.SeekCurrent); err == nil {
				t.start = at
			}
		}
		return nil
	}
	if t.start < 0 {
		return kimg.Errorf(kimg.ErrBusy, "layer", "it was taken away while it was made, and a stream cannot be read again; run it again")
	}
	_, err := s.Seek(t.start, io.SeekStart)
	return err
}

// Stream implements LayerSource.
func (t *tarSource) Stream(ctx context.Context, w io.Writer) (bool, error) {
	return false, t.stream(ctx, w, untar.Options{Take: newBudget("").layer().take})
}

func (t *tarSource) stream(ctx context.Context, w io.Writer, o untar.Options) error {
	plain, err := t.plain(ctx)
	if err == nil {
		o.Stop = t.stop
		err = tarError(untar.Copy(ctx, w, plain, o))
	}
	return err
}

// Stage implements LayerSource with the settings of a plain overlay store.
func (t *tarSource) Stage(ctx context.Context, dir string) (Staged, error) {
	return t.stage(ctx, dir, untar.Options{UserNS: unshare.IsRootless(), Take: newBudget("").layer().take, Log: slog.New(slog.DiscardHandler)})
}

func (t *tarSource) stage(ctx context.Context, dir string, o untar.Options) (Staged, error) {
	plain, err := t.plain(ctx)
	if err != nil {
		return Staged{}, err
	}
	o.Stop = t.stop
	o.Record = func() (*os.File, error) { return TarSplitFile(dir) }
	r, err := untar.Unpack(ctx, dir, plain, o)
	if err != nil {
		return Staged{}, tarError(err)
	}
	return Staged{DiffID: r.DiffID, Size: r.Size, UIDs: r.UIDs, GIDs: r.GIDs, TarSplit: r.Record}, nil
}

// stop ends a Read that waits, where the reader can.
func (t *tarSource) stop() {
	if s, ok := t.r.(interface{ Stop() }); ok {
		s.Stop()
	}
}

// plain removes the compression.
func (t *tarSource) plain(ctx context.Context) (io.ReadCloser, error) {
	if err := t.begin(); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(streamio.WithContext(ctx, t.r), 256<<10)
	if _, err := r.Peek(1); err == io.EOF && !t.known {
		return nil, kimg.Errorf(kimg.ErrIntegrity, "layer", "the stream is empty")
	} else if err != nil && err != io.EOF {
		return nil, err
	}
	plain, _, err := compression.NewReader(ctx, r)
	if err != nil {
		return nil, tarError(err)
	}
	return plain, nil
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
	if err == nil {
		return nil
	}
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
	return safeopen.Nameless(filepath.Dir(dir), "tar-split-")
}
