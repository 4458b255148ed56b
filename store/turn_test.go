package store_test

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// TestTurn: one for every two processors; the next one waits for a turn that is given back, or for a second.
func TestTurn(t *testing.T) {
	st := newStore(t).Store
	var held []func()
	for range (runtime.NumCPU() + 1) / 2 {
		held = append(held, st.Turn(t.Context()))
	}
	took := func(ctx context.Context) time.Duration {
		start := time.Now()
		defer st.Turn(ctx)()
		return time.Since(start)
	}
	if d := took(t.Context()); d < 900*time.Millisecond {
		t.Errorf("one too many had its turn after %v", d)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if d := took(ended); d > 500*time.Millisecond {
		t.Errorf("who gave up waited for %v", d)
	}
	start, free := time.Now(), make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(free); held[0]() })
	took(t.Context())
	select {
	case <-free:
	default:
		t.Error("it did not wait")
	}
	if d := time.Since(start); d > 900*time.Millisecond {
		t.Errorf("a turn was free after 50 ms and came after %v", d)
	}
	for _, done := range held {
		done()
		done()
	}
	if d := took(t.Context()); d > 500*time.Millisecond {
		t.Errorf("a free turn came after %v", d)
	}
}
