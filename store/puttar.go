package store

import (
	"bufio"
	"context"
	"io"
	"os"

	"github.com/containers/storage/pkg/reexec"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/layerdiff/untar"
)

// A driver that keeps whole trees (vfs) has no staging directories: only the library can make a layer, by copying the tree
// below and unpacking a tar over it, under its lock. The tar is made, checked and hashed before, into a file that has no name, so that
// making the layer needs nothing that can still change. A kill leaves a layer that its record calls incomplete, which the
// library removes when it loads the store, or one that the intent names.

// stageTar does the work of Prepare in such a store.
func (tx *Tx) stageTar(ctx context.Context, o *stagedOutput, src LayerSource) (_ *StagedLayer, err error) {
	if o.tar, err = tx.s.spoolFile(); err != nil {
		return nil, wrap("layer", err)
	}
	tx.keep(o)
	if err := failpoint.Here("layer.stage.begin"); err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(o.tar, 1<<20)
	m := streamio.NewMeter(w)
	empty := false
	if from, ok := src.(optionSource); ok {
		err = from.stream(ctx, m, untar.Options{Take: o.room.take})
	} else {
		empty, err = src.Stream(ctx, m)
	}
	if err != nil {
		return nil, wrap("", err)
	}
	if err := w.Flush(); err != nil {
		return nil, wrap("layer", err)
	}
	if err := failpoint.Here("layer.stage.end"); err != nil {
		return nil, err
	}
	return tx.staged(o, Staged{DiffID: m.Digest(), Size: m.Size(), Empty: empty}), nil
}

// TempDir is a directory in the file system of the store for files that have no name by the time somebody else looks.
func (s *Store) TempDir() string { return s.imageRoot() }

// spoolFile makes a file without a name in the store, where layers need their place anyway.
func (s *Store) spoolFile() (*os.File, error) {
	dir := s.imageRoot()
	if s.opened {
		if err := s.makeIntentDir(); err != nil {
			return nil, err
		}
		dir = s.intentDir()
	}
	return safeopen.Nameless(dir, ".new-") // what a kill leaves of that is removed with unfinished intents
}

// putTar makes the layer; its undo is registered already.
func (tx *Tx) putTar(ctx context.Context, l *StagedLayer) error {
	if _, err := l.out.tar.Seek(0, io.SeekStart); err != nil {
		return wrap("layer "+l.ID, err)
	}
	// Without reexec.Init this panics, as the library would with its record of the tar half written: a goroutine of the library
	// goes on reading what is closed by then, and ends the program. Here nothing has begun.
	_ = reexec.Command("storage-applyLayer")
	l.applied = true
	made, _, err := tx.s.st.PutLayer(l.ID, l.Parent, nil, tx.s.mountLabel(l.Parent), false, l.options(), streamio.WithContext(ctx, l.out.tar))
	if err != nil {
		if cerr := check(ctx); cerr != nil {
			return cerr
		}
		if err = unpackError(err); kimg.ClassOf(wrap("", err)) == kimg.ErrInternal {
			err = tarError(err)
		}
		return err
	}
	if made.UncompressedDigest != l.DiffID || made.UncompressedSize != l.Size {
		return kimg.Errorf(kimg.ErrIntegrity, "layer "+l.ID, "the store has read it as %s, %d bytes; it is %s, %d bytes", made.UncompressedDigest, made.UncompressedSize, l.DiffID, l.Size)
	}
	return failpoint.Here("layer.apply.end")
}
