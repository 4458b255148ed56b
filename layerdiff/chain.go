package layerdiff

import (
	"context"
	"io"
	"runtime"
	"sync"

	digest "github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// Source is a layer that can be written: what a stack changed, by [Write], or a layer of an image that a store exports.
type Source struct {
	DiffID digest.Digest // empty: not known before it is written
	Write  func(ctx context.Context, w io.Writer) (Blob, error)
}

// WriteAll writes the layers of a chain side by side, jobs at a time (0: one per processor), and describes them in their order,
// base first. Of layers with the same DiffID the first is written and the others are described as it is. open is called from
// several goroutines, for layer i before it is written, and gives what it is written to; nil: it is not wanted, and its Blob stays
// empty. WriteAll closes what it opened, however that ends. The first error cancels the others; it names the layer by its place in the chain and, when
// that is known, its digest. When WriteAll returns nothing is running any more.
func WriteAll(ctx context.Context, chain []Source, open func(ctx context.Context, i int) (io.WriteCloser, error), jobs int) ([]Blob, error) {
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	blobs, same := make([]Blob, len(chain)), make([]int, len(chain))
	todo := make(chan int, len(chain))
	first := map[digest.Digest]int{}
	for i, s := range chain {
		same[i] = i
		if at, ok := first[s.DiffID]; ok && s.DiffID != "" {
			same[i] = at
			continue
		}
		first[s.DiffID] = i
		todo <- i
	}
	close(todo)
	var wg sync.WaitGroup
	for range min(jobs, len(chain)) {
		wg.Go(func() {
			for i := range todo {
				if ctx.Err() != nil {
					return
				}
				var err error
				if blobs[i], err = writeOne(ctx, chain[i], func() (io.WriteCloser, error) { return open(ctx, i) }); err != nil {
					// Kept by the first only. What it cancels is not an error of its own.
					cancel(kimg.Errorf(kimg.ClassOf(err), "", "layer %d of %d%s: %w", i+1, len(chain), named(chain[i].DiffID), err))
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, kimg.Wrap("", err)
	}
	for i := range blobs {
		blobs[i] = blobs[same[i]]
	}
	return blobs, nil
}

func writeOne(ctx context.Context, s Source, open func() (io.WriteCloser, error)) (Blob, error) {
	w, err := open()
	if err != nil || w == nil {
		return Blob{}, err
	}
	blob, err := s.Write(ctx, w)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return blob, err
}

// named is a digest in a message, when there is one.
func named(d digest.Digest) string {
	if d == "" {
		return ""
	}
	return " (" + d.String() + ")"
}
