package image

import (
	"context"
	"sync"

	"github.com/kimg/kimg/internal/regerror"
)

// session is the library's source or destination at a registry, S. A registry may take back a token before the library believes that it
// is over, which keeps it for as long as it was promised and for a minute at least: then the library has to begin anew.
type session[S any] struct {
	regerror.Patience
	dial func(context.Context) (S, error)

	mu   sync.Mutex
	at   *S
	good bool // something was granted since it began
}

// begin begins it.
func (s *session[S]) begin(ctx context.Context) error {
	at, err := regerror.Open(ctx, s.Patience, s.dial)
	s.at = &at
	return err
}

// now is what to speak through.
func (s *session[S]) now() *S {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// ask does something small, patiently.
func (s *session[S]) ask(ctx context.Context, do func(context.Context, S) error) error {
	return s.Ask(ctx, func(ctx context.Context) error {
		at := s.now()
		return s.judge(ctx, at, do(ctx, *at))
	})
}

// judge looks at how something ended that was done through at. A login that was good and is so no longer is renewed: then the error says
// that the same may be tried again.
func (s *session[S]) judge(ctx context.Context, at *S, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.good = true
	case !regerror.LoggedOut(err):
	case s.at != at: // somebody has renewed it
		return regerror.Renewed(err)
	case s.good:
		if fresh, failed := regerror.Open(ctx, s.Patience, s.dial); failed == nil {
			s.at, s.good = &fresh, false
			return regerror.Renewed(err)
		}
	}
	return err
}
