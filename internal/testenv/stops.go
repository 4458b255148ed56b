package testenv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kimg/kimg"
)

// stopWithin is how soon everything of kimg's own stops when its context is cancelled.
const stopWithin = Slower * 100 * time.Millisecond

// Stops begins something that would take long, cancels it in the middle and fails the test unless it ends at once, as interrupted. The
// best of three counts: the machine may have been busy with something else.
func Stops(t *testing.T, do func(context.Context) error) {
	t.Helper()
	best := time.Hour
	for try := 0; try < 3 && best > stopWithin; try++ {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- do(ctx) }()
		select {
		case err := <-done:
			cancel()
			t.Fatalf("it ended by itself: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		begin := time.Now()
		cancel()
		err := <-done
		best = min(best, time.Since(begin))
		if !errors.Is(err, kimg.ErrInterrupted) {
			t.Errorf("%v", err)
		}
	}
	if best > stopWithin {
		t.Errorf("stopped after %v", best)
	}
}
