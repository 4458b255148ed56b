package layerdiff

import (
	"context"
	"io"
	"iter"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff/view"
)

// Changes lists what differs from the layers below.
func Changes(ctx context.Context, stack view.Stack, o Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		yield(Change{}, kimg.Errorf(kimg.ErrUnsupported, stack.Upper, "not available"))
	}
}

// Write writes the layer as an uncompressed tar.
func Write(ctx context.Context, w io.Writer, stack view.Stack, o Options) (Blob, error) {
	return Blob{}, kimg.Errorf(kimg.ErrUnsupported, stack.Upper, "not available")
}

// Stage writes the layer into an empty directory.
func Stage(ctx context.Context, dir string, tarSplit io.Writer, stack view.Stack, o Options) (Blob, error) {
	return Blob{}, kimg.Errorf(kimg.ErrUnsupported, stack.Upper, "not available")
}
