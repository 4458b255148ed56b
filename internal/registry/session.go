package registry

import (
	"context"
	"sync"
)

// Session is the library's source or destination at a registry, S. A registry may take back a token before the library believes that it
// is over, which keeps it for as long as it was promised and for a minute at least: then the library has to begin anew.
type Session[S any] struct {
	Patience
	dial func(context.Context) (S, error)

	mu   sync.Mutex
	at   *S
	good bool // something was granted since it began
}

// Begin begins a session; the caller closes what [Session.Now] gives in the end.
func Begin[S any](ctx context.Context, p Patience, dial func(context.Context) (S, error)) (*Session[S], error) {
	at, err := Open(ctx, p, dial)
	if err != nil {
		return nil, err
	}
	return &Session[S]{Patience: p, dial: dial, at: &at}, nil
}

// Now is what to speak through.
func (s *Session[S]) Now() *S {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// Ask does something small, patiently.
func (s *Session[S]) Ask(ctx context.Context, do func(context.Context, S) error) error {
	return s.Patience.Ask(ctx, func(ctx context.Context) error {
		at := s.Now()
		return s.Judge(ctx, at, do(ctx, *at))
	})
}

// Judge looks at how something ended that was done through at. A login that was good and is so no longer is renewed: then the error says
// that the same may be tried again.
func (s *Session[S]) Judge(ctx context.Context, at *S, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.good = s.good || s.at == at
	case !loggedOut(err):
	case s.at != at: // somebody has renewed it
		return renewed{err}
	case s.good:
		if fresh, failed := Open(ctx, s.Patience, s.dial); failed == nil {
			s.at, s.good = &fresh, false
			return renewed{err}
		}
	}
	return err
}

// renewed is a refusal after which there was a new login: what was refused may be tried again.
type renewed struct{ error }

func (r renewed) Unwrap() error { return r.error }
