package registry

import (
	"context"
	"io"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/kimg/kimg"
)

// libraryWaits is how long the image library waits at most between the answer 429 and the next request.
const libraryWaits = time.Minute

// Watch is a context for requests that come one after the other. It ends with class network when nothing has come for [Patience.Idle]
// since something was asked for, and with class auth when a login would leave for a host that it is not for.
type Watch struct {
	context.Context
	timer *time.Timer
	idle  time.Duration
	end   context.CancelCauseFunc
}

// Watch begins to wait for a registry. The caller stops it.
func (p Patience) Watch(ctx context.Context) *Watch {
	ctx, end := context.WithCancelCause(ctx)
	timer := time.AfterFunc(p.Idle, func() { end(&kimg.Error{Class: kimg.ErrNetwork, Err: idle{p.Idle}}) })
	ctx = httptrace.WithClientTrace(keepLogins(ctx, p.hosts, end), &httptrace.ClientTrace{
		GetConn:              func(string) { timer.Reset(p.Idle) },
		GotFirstResponseByte: func() { timer.Reset(p.Idle + libraryWaits) }, // nobody outside the library sees which answer it is
	})
	return &Watch{ctx, timer, p.Idle, end}
}

// Wait says that the registry is waited for from now on.
func (w *Watch) Wait() { w.timer.Reset(w.idle) }

// Rest says that nobody waits for it.
func (w *Watch) Rest() { w.timer.Stop() }

// Stop ends the context.
func (w *Watch) Stop() {
	w.Rest()
	w.end(nil)
}

type idle struct{ time.Duration }

func (i idle) Error() string { return "nothing came for " + i.Duration.String() }

// Body is what a registry sends: it is waited for while it is read, and not while its reader does something else.
func (w *Watch) Body(r io.ReadCloser) io.ReadCloser {
	w.Rest()
	return received{r, w}
}

type received struct {
	io.ReadCloser
	*Watch
}

func (r received) Read(p []byte) (int, error) {
	r.Wait()
	defer r.Rest()
	return r.ReadCloser.Read(p)
}

// sent is what a registry is sent: that it is read on means that the registry takes it. While it has nothing to give, nobody waits for
// the registry.
type sent struct {
	io.Reader
	*Watch
	failed atomic.Pointer[error] // of the reader; the connection may still read when the request has ended
}

func (s *sent) Read(p []byte) (int, error) {
	s.Rest()
	defer s.Wait()
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.failed.Store(&err)
	}
	return n, err
}
