package image

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/containers/image/v5/pkg/blobinfocache/memory"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg/internal/regerror"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/layout"
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

// patience is what registries get.
func (c *Converter) patience() regerror.Patience {
	return regerror.Patience{
		Retries: max(cmp.Or(c.o.Retries, 3), 0), Pause: cmp.Or(c.o.RetryPause, time.Second), Idle: cmp.Or(c.o.IdleTimeout, time.Minute), Logger: c.o.Logger,
	}
}

// Close forgets what was learnt.
func (c *Converter) Close() error { return c.policy.close() }

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

// watch returns a reader that stops with ctx and tells how far it is.
func (c *Converter) watch(ctx context.Context, r io.Reader) io.Reader {
	return &watched{streamio.WithContext(ctx, r), c.o.Progress}
}

type watched struct {
	io.Reader
	progress func(int64)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.progress != nil && n > 0 {
		w.progress(int64(n))
	}
	return n, err
}
