package streamio

import (
	"context"
	"io"
)

// Produce returns what write writes, while it is read. The reader's end carries write's error. The caller closes the
// reader: that stops write and waits for it. Its Stop does not wait.
func Produce(ctx context.Context, write func(context.Context, io.Writer) error) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(write(ctx, w))
	}()
	return &produced{PipeReader: r, cancel: cancel, done: done}
}

type produced struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Stop ends the writer, and with it a Read that waits.
func (p *produced) Stop() { p.cancel() }

// Close stops the writer and waits for it, so that nothing is read on its behalf any more.
func (p *produced) Close() error {
	p.Stop()
	err := p.PipeReader.Close()
	<-p.done
	return err
}
