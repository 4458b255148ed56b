package store

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/archive"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/layerdiff/untar"
)

// This file is the only caller of containers/storage's staged-layer API, which is marked experimental upstream.
// TestStagedLayerContract pins what is relied on.

// ownLock is a file of ours beside the library's staging.lock. Its lock belongs to the open file, so that another part
// of this process can ask for it; touching staging.lock itself would drop the library's lock on it.
const ownLock = "kimg.lock"

// stagedOutput is one filled staging directory or, in a store whose driver has none, a file with the tar.
type stagedOutput struct {
	s     *Store
	layer *StagedLayer
	out   *drivers.DriverWithDifferOutput
	lock  *os.File // nil in a wrapped store
	tar   *os.File // without a name; then out and lock are nil
	dir   string   // where the layer is made
	seen  string   // a file that whoever sweeps removes before dir, see place; empty: they are not there yet
	room  *share
}

// cleanup removes the staging directory, if there is one. It is called once, on success and on failure: also an applied layer leaves
// the directory's parent behind.
func (o *stagedOutput) cleanup() (err error) {
	if o.tar != nil {
		return o.tar.Close()
	}
	if o.out != nil {
		err = o.s.st.CleanupStagedLayer(o.out)
	}
	if o.lock != nil {
		err = errors.Join(err, o.lock.Close())
	}
	return err
}

// optionSource is a source that needs to know how the driver writes layers.
type optionSource interface {
	stage(ctx context.Context, dir string, o untar.Options) (Staged, error)
	stream(ctx context.Context, w io.Writer, o untar.Options) error
}

// StageLayer does all the work of making a layer on top of parent ("" for a base; the ID of a layer of the store or of
// one placed before in the same Tx). The layer appears when the change is recorded. When the store has the same layer
// already, that one is used then; a layer no image uses, which another tool or a crash may have left, only after its
// content was verified. An Empty layer is not made: ID is the parent's. It is [Tx.Prepare] and [Tx.Place].
func (tx *Tx) StageLayer(ctx context.Context, parent string, src LayerSource) (*StagedLayer, error) {
	if _, err := tx.depth(ctx, parent); err != nil {
		return nil, err
	}
	l, err := tx.Prepare(ctx, src)
	if err == nil {
		err = tx.Place(ctx, parent, l)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Prepare does what making a layer needs without knowing what it will lie on: several layers of an image can be prepared at the same
// time. Of the result only DiffID, Size and Empty are set. Until it is placed nothing comes of it; of what fails nothing stays, and the
// room it took is free again.
func (tx *Tx) Prepare(ctx context.Context, src LayerSource) (_ *StagedLayer, err error) {
	if err := tx.s.canWalk(); err != nil {
		return nil, err
	}
	tx.mu.Lock()
	if tx.room == nil {
		tx.room = newBudget(tx.s.imageRoot())
	}
	o := &stagedOutput{s: tx.s, room: tx.room.layer()}
	tx.mu.Unlock()
	defer func() {
		if err != nil {
			tx.drop(ctx, o)
		}
	}()
	if tx.s.st.GraphDriverName() != overlay {
		return tx.stageTar(ctx, o, src)
	}
	var staged Staged
	out, err := tx.s.st.PrepareStagedLayer(&drivers.ApplyDiffWithDifferOpts{}, differ(func(dir string, opts *archive.TarOptions) (drivers.DriverWithDifferOutput, error) {
		var err error
		if staged, err = o.fill(ctx, dir, src, opts); err != nil && staged.TarSplit != nil {
			staged.TarSplit.Close()
			staged.TarSplit = nil
		}
		return drivers.DriverWithDifferOutput{
			UncompressedDigest: staged.DiffID, CompressedDigest: staged.DiffID, Size: staged.Size,
			UIDs: staged.UIDs, GIDs: staged.GIDs, TarSplit: staged.TarSplit,
		}, err
	}))
	if out != nil && out.Target != "" {
		if o.out = out; o.dir != "" {
			out.Target = o.dir
		}
		// On an error of its own the library has dropped its lock; the directory is ours to remove all the same.
		tx.keep(o)
	}
	if err != nil {
		return nil, wrap("", o.swept(err))
	}
	if err := staged.DiffID.Validate(); !staged.Empty && (err != nil || staged.TarSplit == nil) {
		return nil, kimg.Errorf(kimg.ErrInternal, "layer", "the source gave no digest or no tar-split record")
	}
	return tx.staged(o, staged), nil
}

// Discard removes a layer that was prepared and is not placed, now rather than when the change ends.
func (tx *Tx) Discard(ctx context.Context, l *StagedLayer) { tx.drop(ctx, l.out) }

// drop removes what was staged, and makes room.
func (tx *Tx) drop(ctx context.Context, o *stagedOutput) {
	tx.mu.Lock()
	tx.outs = slices.DeleteFunc(tx.outs, func(other *stagedOutput) bool { return other == o })
	tx.mu.Unlock()
	tx.clean(ctx, o)
	o.room.back()
}

func (tx *Tx) clean(ctx context.Context, o *stagedOutput) {
	if err := o.cleanup(); err != nil {
		tx.s.log.WarnContext(ctx, "could not remove a staging directory; the next use of the store does", "error", err)
	}
}

// keep makes sure that what was staged is removed in the end.
func (tx *Tx) keep(o *stagedOutput) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.outs = append(tx.outs, o)
}

func (tx *Tx) staged(o *stagedOutput, s Staged) *StagedLayer {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	o.layer = &StagedLayer{DiffID: s.DiffID, Size: s.Size, Empty: s.Empty, out: o}
	return o.layer
}

// Place puts a prepared layer on top of parent, as [Tx.StageLayer] says, and makes it a step of the change.
func (tx *Tx) Place(ctx context.Context, parent string, l *StagedLayer) error {
	depth, err := tx.depth(ctx, parent)
	if err != nil {
		return err
	}
	tx.mu.Lock()
	l.ID, l.Parent, l.depth = parent, parent, depth+1
	if !l.Empty {
		l.ID = layerID(parent, l.DiffID)
	}
	tx.mu.Unlock()
	if l.Empty {
		return nil
	}
	tx.s.depths.Store(l.ID, l.depth)
	if err := tx.lookForExisting(ctx, l); err != nil {
		return err
	}
	tx.addLayer(l)
	return nil
}

func (tx *Tx) addLayer(l *StagedLayer) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.steps = append(tx.steps, step{
		what: "layer " + l.ID, layer: true,
		intent: func() (*intentStep, error) { return &intentStep{Layer: l.ID, DiffID: l.DiffID}, nil },
		do:     func(ctx context.Context) error { return tx.apply(ctx, l) },
	})
}

// fill lets the source write into the staging directory and keeps the mode the driver gave it: a tar's own entry for
// the root directory does not count.
func (o *stagedOutput) fill(ctx context.Context, dir string, src LayerSource, opts *archive.TarOptions) (Staged, error) {
	if o.s.opened {
		var err error
		if o.lock, err = makeLocked(filepath.Join(filepath.Dir(dir), ownLock)); err != nil {
			return Staged{}, err
		}
	}
	given, err := os.Stat(dir)
	if err == nil {
		err = o.place(dir, given.Mode())
	}
	if err == nil {
		err = failpoint.Here("layer.stage.begin")
	}
	if err != nil {
		return Staged{}, err
	}
	var staged Staged
	if from, ok := src.(optionSource); ok {
		staged, err = from.stage(ctx, o.dir, untar.Options{
			UserNS: opts.InUserNS, KeepMarks: opts.WhiteoutFormat != archive.OverlayWhiteoutFormat, IgnoreOwners: opts.IgnoreChownErrors,
			Take: o.room.take, Log: o.s.log,
		})
	} else {
		staged, err = src.Stage(ctx, o.dir)
	}
	if err == nil {
		err = os.Chmod(o.dir, given.Mode())
	}
	if err == nil {
		err = failpoint.Here("layer.stage.end")
	}
	return staged, err
}

// differ is a function the library calls with a directory to fill.
type differ func(dir string, o *archive.TarOptions) (drivers.DriverWithDifferOutput, error)

// ApplyDiff implements drivers.Differ.
func (d differ) ApplyDiff(dir string, o *archive.TarOptions, _ *drivers.DifferOptions) (drivers.DriverWithDifferOutput, error) {
	return d(dir, o)
}

// Close implements drivers.Differ.
func (differ) Close() error { return nil }

// apply makes the staged layer a layer of the store, or finds that it is one. It may be called again: the staged copy is
// only gone when this change has applied it. A tool that does not know our locks may make the same layer meanwhile: then that
// one is used.
func (tx *Tx) apply(ctx context.Context, l *StagedLayer) error {
	unlock, err := tx.s.lockDigest(ctx, l.DiffID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := failpoint.Here("layer.apply.begin"); err != nil {
		return err
	}
	for range maxRetries {
		// The library would replace a layer that is there already, also under a running container.
		usable, rerr := tx.reuse(ctx, l)
		switch {
		case rerr != nil || usable:
			return rerr
		case l.applied:
			return kimg.Errorf(kimg.ErrBusy, "layer "+l.ID, "was removed by somebody else while the change was recorded")
		case l.out == nil:
			return gone(l.ID)
		}
		if err = tx.make(ctx, l); !errors.Is(err, storage.ErrDuplicateID) {
			return err
		}
		l.applied = false
	}
	return err
}

// make makes the layer.
func (tx *Tx) make(ctx context.Context, l *StagedLayer) error {
	tx.undo.Add(func(ctx context.Context) error { return tx.unapply(ctx, l) })
	if l.out.tar != nil {
		return tx.putTar(ctx, l)
	}
	out := *l.out.out // the library clears what it has used; cleanup needs the rest
	l.out.out.TarSplit = nil
	l.applied = true
	_, err := tx.s.st.ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID: l.ID, ParentLayer: l.Parent, MountLabel: tx.s.mountLabel(l.Parent), LayerOptions: l.options(), DiffOutput: &out,
	})
	if err = l.out.swept(err); err != nil {
		return err
	}
	return failpoint.Here("layer.apply.end")
}

// unapply takes back a layer this change has made, unless somebody uses it by now.
func (tx *Tx) unapply(ctx context.Context, l *StagedLayer) error {
	if !l.applied {
		return nil // somebody else's
	}
	return tx.s.release(ctx, l.ID, l.DiffID, tx.intent)
}
