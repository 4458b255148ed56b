package registry

import (
	"context"
	"io"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/kimg/kimg"
)

// libraryWaits is how long the image library waits at most between the answer 429 and the next request.
const libraryWaits = time.Minute

// maxRequests is how many requests a registry is sent for one question, and libraryAsks how often the library asks at most after 429.
const maxRequests, libraryAsks = 10_000, 5

// Watch is a context for requests that come one after the other. It ends with class network when nothing has come for [Patience.Idle]
// since something was asked for, with class auth when a login would leave for a host that it is not for, and with class limit when there is
// no end of requests.
type Watch struct {
	context.Context
	timer *time.Timer
	idle  time.Duration
	end   context.CancelCauseFunc
	asked atomic.Int32

	conn   atomic.Pointer[net.Conn] // where something was asked for; nil: it is not known that somebody else can be asked
	silent atomic.Bool              // it was closed because nothing came
}

// Watch begins to wait for a registry. The caller stops it.
func (p Patience) Watch(ctx context.Context) *Watch {
	ctx, end := context.WithCancelCause(ctx)
	w := &Watch{idle: p.Idle, end: end}
	w.timer = time.AfterFunc(time.Hour, w.nothing)
	w.Wait()
	w.Context = httptrace.WithClientTrace(keepLogins(ctx, p.hosts, end), &httptrace.ClientTrace{
		GetConn: func(string) {
			w.conn.Store(nil)
			w.silent.Store(false)
			w.Wait()
			if w.asked.Add(1) > maxRequests {
				end(kimg.Errorf(kimg.ErrLimit, "", "too-big: the registry has no end after %d requests", maxRequests))
			}
		},
		GotConn: func(at httptrace.GotConnInfo) {
			if p.others {
				w.conn.Store(&at.Conn)
			}
		},
		GotFirstResponseByte: func() { w.timer.Reset(p.Idle + libraryWaits) }, // nobody outside the library sees which answer it is
	})
	return w
}

// nothing ends what somebody waits for: the request when another host may be asked next, else everything.
func (w *Watch) nothing() {
	if conn := w.conn.Swap(nil); conn != nil {
		w.silent.Store(true)
		w.Wait()
		_ = (*conn).Close() // nothing is lost
		return
	}
	w.end(w.idled())
}

func (w *Watch) idled() error { return &kimg.Error{Class: kimg.ErrNetwork, Err: idle{w.idle}} }

// because returns why something failed.
func (w *Watch) because(err error) error {
	switch {
	case err != nil && w.Err() == nil && w.silent.Load():
		return w.idled()
	case w.asked.Load() < libraryAsks && kimg.ClassOf(Classify(err)) == kimg.ErrRateLimit:
		return hurried{err}
	}
	return Because(w, err)
}

// hurried is a refusal with 429 after which the library did not wait: it does not for tokens.
type hurried struct{ error }

func (h hurried) Unwrap() error { return h.error }

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
