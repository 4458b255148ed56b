package testenv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kimg/kimg"
)

// stopWithin is how soon everything of kimg's own stops when its context is cancelled.
const stopWithin = 100 * time.Millisecond

// Soon fails the test unless something takes no longer than the bar, ten times that under the race detector. The best of up to five
// counts: the machine may be busy with something else.
func Soon(t testing.TB, what string, bar time.Duration, took func() time.Duration) {
	t.Helper()
	bar *= Slower
	best := took()
	for try := 1; try < 5 && best > bar; try++ {
		best = min(best, took())
	}
	if best > bar {
		t.Errorf("%s after %v", what, best)
	}
}

// Stops begins something that would take long, cancels it in the middle and fails the test unless it ends [Soon], as interrupted.
func Stops(t *testing.T, do func(context.Context) error) {
	t.Helper()
	Soon(t, "stopped", stopWithin, func() time.Duration {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- do(ctx) }()
		select {
		case err := <-done:
			t.Fatalf("it ended by itself: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		begin := time.Now()
		cancel()
		err := <-done
		took := time.Since(begin)
		if !errors.Is(err, kimg.ErrInterrupted) {
			t.Errorf("%v", err)
		}
		return took
	})
}
