// Package chunked writes layers in the form zstd:chunked, through containers/image.
package chunked

import (
	"io"
	"sync/atomic"

	"github.com/containers/image/v5/pkg/compression"
)

// New returns what compresses the tar that is written to it into w. Level 0 is the default. When it is closed without an error, annotations
// holds what the layer's descriptor has to say. The caller closes it, also after an error.
func New(w io.Writer, level int, annotations map[string]string) (io.WriteCloser, error) {
	at := &level
	if level == 0 {
		at = nil
	}
	to := &calm{Writer: w}
	z, err := compression.CompressStreamWithMetadata(to, annotations, compression.ZstdChunked, at)
	return writer{z, to}, err
}

// calm keeps to itself what it fails with: the library leaves a goroutine behind, with all its buffers, when it hears of it.
type calm struct {
	io.Writer
	err atomic.Pointer[error]
}

func (c *calm) Write(p []byte) (int, error) {
	if c.failed() == nil {
		if _, err := c.Writer.Write(p); err != nil {
			c.err.Store(&err)
		}
	}
	return len(p), nil
}

func (c *calm) failed() error {
	if err := c.err.Load(); err != nil {
		return *err
	}
	return nil
}

type writer struct {
	io.WriteCloser
	to *calm
}

func (w writer) Write(p []byte) (int, error) {
	if err := w.to.failed(); err != nil {
		return 0, err
	}
	return w.WriteCloser.Write(p)
}

func (w writer) Close() error {
	err := w.WriteCloser.Close()
	if failed := w.to.failed(); failed != nil {
		return failed
	}
	return err
}
