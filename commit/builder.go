package commit

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// ROLayer is a layer to build on, and all that is below it: of an image ([From]), of nothing, or what a step of a build has made
// ([RWLayer.Commit]). Until Release nobody collects it. It is safe for concurrent use.
type ROLayer struct {
	Image    *store.Image // whose layer it is; nil from scratch. Its steps since have the same
	Warnings []Warning    // about the image, for the user

	b        *build
	top      string // id of the newest layer; "": none
	made     []made // since the image, base first
	blob     convert.Layer
	hold     *store.Hold // nil: the lease is enough
	released atomic.Bool
}

// made is a layer that a step has made.
type made struct {
	id   string
	blob convert.Layer
}

// build is what the layers of one build share.
type build struct {
	st      *store.Store
	log     *slog.Logger
	diffIDs []digest.Digest // of the image
	mu      sync.Mutex
	users   int
	lease   *store.Lease // of the image; nil: none
}

// use counts one more layer that needs the image.
func (b *build) use() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users++
}

// drop counts one less; the last one gives the lease back. That it cannot is a warning: the lease ends by its time.
func (b *build) drop(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users--; b.users > 0 || b.lease == nil {
		return
	}
	if err := b.lease.Release(ctx); err != nil {
		b.log.WarnContext(ctx, "a lease could not be given back", "lease", b.lease.ID(), "error", kimg.Line(err))
	}
}

// DiffID returns the digest of the newest layer's uncompressed tar; without a layer, and when the step has changed nothing, that of a tar
// without entries.
func (l *ROLayer) DiffID() digest.Digest { return l.blob.DiffID }

// Digest returns the digest of the newest layer as the manifest of the image names it; empty without a layer. A step's layer is not
// compressed.
func (l *ROLayer) Digest() digest.Digest { return l.blob.Digest }

// Empty tells whether there is no layer: from scratch, and when the step has changed nothing.
func (l *ROLayer) Empty() bool { return l.blob.Digest == "" }

// DiffIDs returns the digests of all layers' uncompressed tars, base first.
func (l *ROLayer) DiffIDs() []digest.Digest {
	all := slices.Clone(l.b.diffIDs)
	for _, m := range l.made {
		all = append(all, m.blob.DiffID)
	}
	return all
}

// ChainID returns the name of the whole stack (OCI image specification, "Layer ChainID"); empty without layers.
func (l *ROLayer) ChainID() digest.Digest { return identity.ChainID(l.DiffIDs()) }

// NewRWLayer makes a layer on top that can be written to, and mounts it. It outlives this one's Release, after which no more are made:
// class invalid. The caller releases it.
func (l *ROLayer) NewRWLayer(ctx context.Context) (*RWLayer, error) {
	if l.released.Load() {
		return nil, kimg.Errorf(kimg.ErrInvalid, "layer", "was released")
	}
	l.b.use()
	work, err := l.b.st.NewWorkLayer(ctx, l.top, l.hold)
	if err != nil {
		l.b.drop(ctx)
		return nil, err
	}
	return &RWLayer{on: l, work: work}, nil
}

// Release gives the layer back, also when ctx is cancelled: what a step has made and no image stands on is removed with the last user. A
// second call does nothing; after an error it tries again.
func (l *ROLayer) Release(ctx context.Context) error {
	if l.hold != nil {
		if err := l.hold.Release(ctx); err != nil {
			return err
		}
	}
	if !l.released.Swap(true) {
		l.b.drop(context.WithoutCancel(ctx))
	}
	return nil
}

// RWLayer is where a step of a build writes. It is safe for concurrent use.
type RWLayer struct {
	on       *ROLayer
	work     *store.WorkLayer
	released atomic.Bool
}

// ID returns the layer's ID in the store, which is random.
func (l *RWLayer) ID() string { return l.work.ID }

// Root returns where the tree is mounted: in the mount namespace of this process, so that an ordinary user enters his own one first.
func (l *RWLayer) Root() string { return l.work.Root }

// Commit makes a layer of what was written so far; Root stays as it is and may be committed again. A layer that the store has already is
// used. Nothing may write to Root meanwhile: class busy. The caller releases the new layer. Class invalid after Release.
func (l *RWLayer) Commit(ctx context.Context) (*ROLayer, error) {
	stack, err := l.work.Stack(ctx)
	if err != nil {
		return nil, err
	}
	defer stack.Close()
	to := &ROLayer{Image: l.on.Image, b: l.on.b}
	src := &tree{stack: stack.Stack, o: layerdiff.Options{Logger: l.on.b.log}}
	stage := func(ctx context.Context, tx *store.Tx) error {
		staged, err := tx.StageLayer(ctx, l.work.Parent, src)
		if err != nil {
			return err
		}
		to.top, to.blob, to.made = staged.ID, convert.Layer{DiffID: src.blob.DiffID}, slices.Clone(l.on.made)
		if !staged.Empty {
			to.blob.Digest, to.blob.Size = staged.DiffID, staged.Size
			to.made = append(to.made, made{staged.ID, to.blob})
		}
		to.hold = tx.Hold(staged, l.on.hold)
		return nil
	}
	err = store.Again(func() error { return to.b.st.Change(ctx, "layer", stage) })
	if err != nil {
		return nil, err
	}
	to.b.use()
	return to, nil
}

// Release unmounts and removes the layer, also when ctx is cancelled and somebody else has unmounted it. A second call does nothing; after
// an error it tries again.
func (l *RWLayer) Release(ctx context.Context) error {
	if err := l.work.Release(ctx); err != nil {
		return err
	}
	if !l.released.Swap(true) {
		l.on.b.drop(context.WithoutCancel(ctx))
	}
	return nil
}
