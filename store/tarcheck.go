package store

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containers/storage/pkg/archive"

	"github.com/kimg/kimg"
)

// Limits of one layer's tar (failure model).
const (
	maxMemberName = 4096
	maxMembers    = 2_000_000
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
		if n == maxMembers {
			return kimg.Errorf(kimg.ErrLimit, "layer", "more than %d members", maxMembers)
		}
		if err := checkMember(h); err != nil {
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
	case errors.Is(err, io.ErrUnexpectedEOF):
		return kimg.Errorf(kimg.ErrIntegrity, "layer", "the tar stream is cut short")
	case errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong):
		return kimg.Errorf(kimg.ErrInvalid, "layer", "not a tar stream: %w", err)
	}
	return tarError(err)
}

func tooLarge() error {
	return kimg.Errorf(kimg.ErrLimit, "layer", "an uncompressed layer of more than %d bytes", int64(maxLayerSize))
}

// checkMember refuses what must not come from input: names that are no paths, and overlay's own attributes, with which a
// tar could make the merged tree show files of other layers.
func checkMember(h *tar.Header) error {
	name := kimg.Escape(h.Name, 255)
	for what, s := range map[string]string{"name": h.Name, "link": h.Linkname} {
		if len(s) > maxMemberName {
			return kimg.Errorf(kimg.ErrLimit, name, "a member's %s of %d bytes, more than %d", what, len(s), maxMemberName)
		}
		if strings.Contains(s, "\x00") {
			return kimg.Errorf(kimg.ErrUnsafe, name, "a zero byte in a member's %s", what)
		}
	}
	if h.Name == "" {
		return kimg.Errorf(kimg.ErrInvalid, "layer", "a member without a name")
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return kimg.Errorf(kimg.ErrInvalid, name, "owner %d:%d is out of range", h.Uid, h.Gid)
	}
	if h.Typeflag == tar.TypeGNUSparse {
		return sparse(name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return sparse(name)
		}
		attr := strings.TrimPrefix(strings.TrimPrefix(key, "SCHILY.xattr."), "LIBARCHIVE.xattr.")
		if attr != key && (strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.")) {
			return kimg.Errorf(kimg.ErrUnsafe, name, "carries the overlay attribute %s", kimg.Quote(attr))
		}
	}
	return nil
}

func sparse(name string) error {
	return kimg.Errorf(kimg.ErrUnsupported, name, "a sparse member: it cannot be given back byte for byte")
}

// owners collects the distinct owners of a layer.
type owners struct{ uids, gids map[uint32]bool }

func newOwners() *owners { return &owners{map[uint32]bool{}, map[uint32]bool{}} }

func (o *owners) add(uid, gid int) {
	o.uids[uint32(uid)], o.gids[uint32(gid)] = true, true // checkMember has checked the range
}

func (o *owners) lists() (uids, gids []uint32) {
	return slices.Sorted(maps.Keys(o.uids)), slices.Sorted(maps.Keys(o.gids))
}
