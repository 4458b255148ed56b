package store

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containers/storage/pkg/archive"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/tarmember"
)

// tarChecker lets a tar stream through as its members prove acceptable: a byte passes only after the header before it was looked at.
type tarChecker struct {
	*io.PipeReader
	owners *owners // may be nil; read after Close
	err    error   // why the stream was refused; read after done
	done   chan struct{}
	ctx    context.Context // of the one call the checker lives in
}

// checkTar starts checking r, which it closes. The caller reads to the end or to an error and calls Close.
func checkTar(ctx context.Context, r io.ReadCloser) *tarChecker {
	pr, pw := io.Pipe()
	c := &tarChecker{PipeReader: pr, done: make(chan struct{}), ctx: ctx}
	// A source that blocks cannot be interrupted; whoever reads from us can.
	stop := context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer close(c.done)
		defer r.Close()
		defer stop()
		err := c.run(ctx, r, pw)
		if !errors.Is(err, io.ErrClosedPipe) { // the reader stopped first and knows why
			c.err = err
		}
		pw.CloseWithError(err)
	}()
	return c
}

// Close stops the check and returns why the stream was refused, nil if it was not. A source that blocks, as a terminal
// does, is not waited for once the context is cancelled.
func (c *tarChecker) Close() error {
	c.PipeReader.Close()
	select {
	case <-c.done:
		return c.err
	case <-c.ctx.Done():
	}
	select {
	case <-c.done:
		return c.err
	case <-time.After(cancelGrace):
		return context.Cause(c.ctx)
	}
}

// cancelGrace is how long a cancelled check may take to notice.
const cancelGrace = 200 * time.Millisecond

func (c *tarChecker) run(ctx context.Context, r io.Reader, w io.Writer) error {
	// One byte more than allowed is read, so that the limit is an error and not a short stream.
	limited := &io.LimitedReader{R: r, N: maxLayerSize + 1}
	through := io.TeeReader(limited, w)
	tr := tar.NewReader(through)
	for n := 0; ; n++ {
		if err := check(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return c.streamError(err, limited)
		}
		if n == tarmember.MaxMembers {
			return kimg.Errorf(kimg.ErrLimit, "layer", "more than %d members", tarmember.MaxMembers)
		}
		if err := tarmember.Check(h); err != nil {
			return err
		}
		if c.owners != nil && !strings.HasPrefix(path.Base(h.Name), archive.WhiteoutPrefix) {
			c.owners.add(h.Uid, h.Gid)
		}
		if _, err := io.Copy(io.Discard, tr); err != nil {
			return c.streamError(err, limited)
		}
	}
	// A tar may end without its two blocks of zeros; padding after them belongs to the stream.
	if _, err := io.Copy(io.Discard, through); err != nil {
		return c.streamError(err, limited)
	}
	if limited.N <= 0 {
		return tooLarge()
	}
	return nil
}

func (c *tarChecker) streamError(err error, limited *io.LimitedReader) error {
	switch {
	case limited.N <= 0:
		return tooLarge()
	case errors.Is(err, io.ErrClosedPipe):
		return err
	}
	return tarError(tarmember.Explain(err))
}

func tooLarge() error {
	return kimg.Errorf(kimg.ErrLimit, "layer", "an uncompressed layer of more than %d bytes", int64(maxLayerSize))
}

// owners collects the distinct owners of a layer.
type owners struct{ uids, gids map[uint32]bool }

func newOwners() *owners { return &owners{map[uint32]bool{}, map[uint32]bool{}} }

func (o *owners) add(uid, gid int) {
	o.uids[uint32(uid)], o.gids[uint32(gid)] = true, true // tarmember.Check has checked the range
}

func (o *owners) lists() (uids, gids []uint32) {
	return slices.Sorted(maps.Keys(o.uids)), slices.Sorted(maps.Keys(o.gids))
}
