package image

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/containers/image/v5/pkg/blobinfocache/memory"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/layout"
	"github.com/kimg/kimg/store/transfer"
)

// Converter converts images and remembers what it has learnt about their blobs. It is safe for concurrent use.
type Converter struct {
	o      Options
	memo   *memo
	policy policy
	slots  chan struct{} // one for each layer that may be moved at the same time

	verified layout.Verified
	seen     types.BlobInfoCache

	mu sync.Mutex
	st *store.Store // opened when a reference names it
}

// New returns a Converter. The caller closes it.
func New(o Options) *Converter {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Converter{o: o, memo: newMemo(), seen: memory.New(), policy: policy{sys: o.Sys}, slots: make(chan struct{}, o.jobs())}
}

// at is what a registry gets that a reference leads to, with the logins of sources.
func (c *Converter) at(ref types.ImageReference) registry.Patience {
	return c.patience().For(c.o.Sys, ref.DockerReference())
}

// patience is what registries get.
func (c *Converter) patience() registry.Patience {
	return registry.Patient(c.o.Retries, c.o.RetryPause, c.o.IdleTimeout, c.o.Logger)
}

// Close ends the use of the Converter, which holds nothing that outlives it: the error is always nil.
func (c *Converter) Close() error { return nil }

// parallel does n things, as many at the same time as the options allow. The first failure stops the others and is returned.
func (c *Converter) parallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for i := range n {
		select {
		case <-ctx.Done():
			continue
		case c.slots <- struct{}{}:
		}
		wg.Go(func() {
			defer func() { <-c.slots }()
			if ctx.Err() != nil {
				return
			}
			if err := guard(func() error { return do(ctx, i) }); err != nil {
				once.Do(func() { first = err; stop(err) })
			}
		})
	}
	wg.Wait()
	if first == nil {
		return context.Cause(ctx)
	}
	return first
}

// tells is who is told about the layers of an image; nil: nobody.
func (c *Converter) tells(image string) func(transfer.Event) {
	if c.o.Progress == nil {
		return nil
	}
	return func(e transfer.Event) { c.o.Progress(image, e) }
}

// moving tells that a blob begins to move, and returns what is to be told the rest.
func (c *Converter) moving(b blob) *transfer.Meter {
	return transfer.NewMeter(transfer.Event{Digest: b.digest, Size: b.size, Start: time.Now()}, c.tells(""))
}
