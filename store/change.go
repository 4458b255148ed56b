package store

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
	"github.com/kimg/kimg/internal/failpoint"
)

// Tx collects what a change will record. It is valid inside the stage function given to [Store.Change] only and not
// safe for concurrent use, except for StageLayer, Prepare, Discard, SpoolBlob, and what only looks.
type Tx struct {
	s      *Store
	steps  []step
	mu     sync.Mutex      // guards steps, outs and room
	outs   []*stagedOutput // every staging directory, cleaned up in any case
	there  []*StagedLayer  // layers that the store had
	room   *budget         // of foreign layers; nil: none was staged
	undo   cleanup.Stack
	locked map[digest.Digest]func() // gives back what is locked to the very end
	lists  []listPut
	intent *intent
	final  bool // a step that cannot be taken back is done: from now on only forward
}

// step is one thing a change records.
type step struct {
	what   string
	do     func(context.Context) error
	intent func() (*intentStep, error) // what recovery must know about it; nil: nothing
	layer  bool                        // may be done again
	final  func(error) bool            // after do returned that error: cannot be taken back any more; nil: never
}

// Change is the seam every mutation goes through. stage does all heavy work and registers with tx what is to be
// recorded; nothing of it is visible. Then the file systems are synced, the steps are recorded in the order they were
// registered, and the file systems are synced again: when Change returns nil, the result is durable. On any failure
// everything is taken back, last first, and the first error is returned. op names the change in errors and logs.
//
// Once a step that cannot be taken back has happened (a container is removed), cancelling ctx has no effect any more,
// and if a later step fails, the next [Open] of the store completes the change.
func (s *Store) Change(ctx context.Context, op string, stage func(ctx context.Context, tx *Tx) error) (err error) {
	tx := &Tx{s: s}
	defer func() { tx.discard(ctx) }() // after the undo
	defer func() {
		if err == nil {
			return
		}
		var p *panicked
		if errors.As(err, &p) {
			// A panic of the library leaves its lock held: a second call, to clean up, would wait for ever. The next Open
			// cleans up, in another process.
			tx.outs = nil
			tx.intent.abandon()
			return
		}
		if tx.final {
			s.log.WarnContext(ctx, "change stopped half-way; the next use of the store completes it", "op", op, "error", err)
			tx.intent.abandon()
			return
		}
		if uerr := errors.Join(tx.intent.unmark(), tx.undo.Run(ctx)); uerr != nil {
			s.log.ErrorContext(ctx, "could not take everything back", "op", op, "error", uerr)
			err = errors.Join(err, kimg.Errorf(kimg.ErrDamaged, op, "could not take everything back: %w", uerr))
			tx.intent.abandon()
			return
		}
		tx.intent.remove()
	}()
	return guarded(op, func() error { return tx.run(ctx, op, stage) })
}

// run goes through the phases of a change.
func (tx *Tx) run(ctx context.Context, op string, stage func(ctx context.Context, tx *Tx) error) error {
	if err := failpoint.Here("change.begin"); err != nil {
		return err
	}
	if err := stage(ctx, tx); err != nil {
		return err
	}
	if err := failpoint.Here("change.staged"); err != nil {
		return err
	}
	if len(tx.outs) > 0 {
		if err := tx.s.sync(); err != nil {
			return wrap(op, err)
		}
	}
	if err := failpoint.Here("change.synced"); err != nil {
		return err
	}
	if err := tx.holdLists(ctx); err != nil {
		return wrap(op, err)
	}
	if err := tx.begin(op); err != nil {
		return wrap(op, err)
	}
	if err := failpoint.Here("change.intent"); err != nil {
		return err
	}
	if err := tx.record(ctx); err != nil {
		return err
	}
	if err := tx.intent.mark(); err != nil {
		return wrap(op, err)
	}
	if err := failpoint.Here("change.recorded"); err != nil {
		return err
	}
	if err := tx.s.sync(); err != nil {
		return wrap(op, err)
	}
	if err := failpoint.Here("change.done"); err != nil {
		return err
	}
	tx.intent.remove()
	tx.results(op)
	return nil
}

// begin makes the change known to whoever opens the store after this process is killed.
func (tx *Tx) begin(op string) error {
	in := intent{Schema: intentSchema, Op: op}
	for _, st := range tx.steps {
		if st.intent == nil {
			continue
		}
		is, err := st.intent()
		if err != nil {
			return err
		}
		in.Steps = append(in.Steps, *is)
	}
	if len(in.Steps) == 0 || !tx.s.opened {
		return nil // the steps were prepared all the same
	}
	var err error
	tx.intent, err = tx.s.writeIntent(in)
	return err
}

// maxRetries bounds how often layers are applied again because another process removed one that was to be reused.
const maxRetries = 3

func (tx *Tx) record(ctx context.Context) error {
	for i, retries := 0, 0; i < len(tx.steps); i++ {
		if tx.final {
			ctx = context.WithoutCancel(ctx)
		}
		if err := check(ctx); err != nil {
			return err
		}
		st := tx.steps[i]
		if i > 0 && tx.steps[i-1].layer && !st.layer {
			// Applying a layer writes small files of the driver beside the content that is synced already. Nothing may
			// rest on the layer before they are durable too: an image, or the removal of the container it came from.
			if err := tx.s.sync(); err != nil {
				return wrap(tx.steps[i-1].what, err)
			}
		}
		err := st.do(ctx)
		for ; errors.Is(err, storage.ErrLayerUnknown) && !tx.final && retries < maxRetries && tx.anyExisting(); retries++ {
			// A layer that was there when we looked is gone: its only user was removed meanwhile. The staged copy is
			// still ours, so it is applied now.
			if err = tx.applyAgain(ctx, i); err == nil {
				err = st.do(ctx)
			}
		}
		tx.final = tx.final || st.final != nil && st.final(err)
		if err != nil {
			return wrap(st.what, err)
		}
	}
	return nil
}

// applyAgain makes sure the layers of the first n steps are there.
func (tx *Tx) applyAgain(ctx context.Context, n int) error {
	for _, st := range tx.steps[:n] {
		if st.layer {
			if err := st.do(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (tx *Tx) anyExisting() bool {
	return slices.ContainsFunc(tx.outs, func(o *stagedOutput) bool { return o.layer != nil && o.layer.Existing })
}

// discard removes every staging directory of the change, and gives its locks back.
func (tx *Tx) discard(ctx context.Context) {
	for _, out := range tx.outs {
		tx.clean(ctx, out)
	}
	for _, unlock := range tx.locked {
		unlock()
	}
}

// Undo registers how something stage has done outside this package is taken back if the change fails.
func (tx *Tx) Undo(fn func(ctx context.Context) error) { tx.undo.Add(fn) }

// Record registers a step of the caller's own: a few milliseconds, nothing that streams. It registers with Undo, when it
// has happened, how it is taken back. After a kill nobody takes it back or completes it.
func (tx *Tx) Record(name string, fn func(ctx context.Context) error) {
	tx.steps = append(tx.steps, step{what: name, do: fn})
}

// PutImage registers an image record; see [Store.PutImage] for what it does.
func (tx *Tx) PutImage(rec ImageRecord) {
	tx.put(&imagePut{s: tx.s, rec: rec})
}

func (tx *Tx) put(p *imagePut) {
	tx.steps = append(tx.steps, step{what: "image " + p.rec.ID(), intent: p.intentStep, do: func(ctx context.Context) error {
		tx.undo.Add(p.undo)
		return p.do(ctx)
	}})
}

// RemoveContainer registers the removal of a container, by ID. It cannot be taken back: a failure after it is
// completed by the next [Open], not undone.
func (tx *Tx) RemoveContainer(id string) {
	var rw string // its layer
	tx.steps = append(tx.steps, step{
		what: "container " + id,
		intent: func() (*intentStep, error) {
			c, err := tx.s.st.Container(id)
			if err != nil {
				return nil, wrap("container "+id, err)
			}
			rw = c.LayerID
			return &intentStep{Remove: c.ID, RW: rw}, nil
		},
		do: func(ctx context.Context) error { return tx.s.removeContainer(ctx, id) },
		// The library removes the layer first: half-way through, the record may still be there and the data not.
		final: func(err error) bool { return err == nil || rw != "" && !tx.s.layerExists(rw) },
	})
}

// AddLayer stages, verifies and records one layer. An empty layer is not made: the parent is returned.
func (s *Store) AddLayer(ctx context.Context, parent string, src LayerSource) (*storage.Layer, error) {
	var id string
	err := s.Change(ctx, "add layer", func(ctx context.Context, tx *Tx) error {
		l, err := tx.StageLayer(ctx, parent, src)
		if err == nil {
			id = l.ID
		}
		return err
	})
	if err != nil || id == "" {
		return nil, err
	}
	l, err := s.st.Layer(id)
	return l, wrap("layer "+id, err)
}

// PutImage records an image, as podman, buildah and skopeo read it. Names move from the images that had them. When the
// store has an image with the same configuration already, the names are added to it; a manifest in another format is
// kept beside the first one, and takes its place when every name of the image is among the given ones.
func (s *Store) PutImage(ctx context.Context, rec ImageRecord) (*Image, error) {
	err := s.Change(ctx, "put image", func(_ context.Context, tx *Tx) error {
		tx.PutImage(rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	img, err := s.st.Image(rec.ID())
	if err != nil {
		return nil, wrap("image "+rec.ID(), err)
	}
	return s.image(img), nil
}
