package image

import (
	"context"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
)

// Converter converts images and remembers what it has learnt about their blobs. It is safe for concurrent use.
type Converter struct{ o Options }

// New returns a Converter. The caller closes it.
func New(o Options) *Converter { return &Converter{o: o} }

// Close forgets what was learnt.
func (c *Converter) Close() error { return nil }

// Convert writes the image at src to dst, in the format of the options.
func (c *Converter) Convert(ctx context.Context, src, dst types.ImageReference) (Result, error) {
	return Result{}, kimg.Errorf(kimg.ErrUnsupported, "convert", "is not available yet")
}
