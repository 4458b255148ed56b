// Package cleanup takes steps back, last first, also after the context they ran under is cancelled.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/kimg/kimg"
)

// Limit is how long one step may take to be taken back.
const Limit = 10 * time.Second

// Stack holds what must be done to take back the steps so far. The zero value is ready. It is not safe for
// concurrent use.
type Stack struct{ undo []func(context.Context) error }

// Add registers how the latest step is taken back.
func (s *Stack) Add(fn func(context.Context) error) { s.undo = append(s.undo, fn) }

// Len returns the number of steps registered.
func (s *Stack) Len() int { return len(s.undo) }

// Clear forgets every step: there is nothing to take back any more.
func (s *Stack) Clear() { s.undo = nil }

// Run takes every step back, last first, and forgets them. A step that fails does not stop the others. Each gets a
// context with the values of ctx that is not cancelled with it and lasts [Limit]; a step that does not honour its
// context is waited for.
func (s *Stack) Run(ctx context.Context) error {
	var errs []error
	for len(s.undo) > 0 {
		fn := s.undo[len(s.undo)-1]
		s.undo = s.undo[:len(s.undo)-1]
		if err := runOne(ctx, fn); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// runOne keeps a panic in one step from hiding the others.
func runOne(ctx context.Context, fn func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Limit)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = &kimg.Error{Class: kimg.ErrInternal, Object: "cleanup", Err: fmt.Errorf("%v at %s", r, debug.Stack())}
		}
	}()
	return fn(ctx)
}
