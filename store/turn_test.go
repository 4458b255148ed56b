package store_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
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
	const bar = 500 * time.Millisecond
	testenv.Soon(t, "who gave up went on", bar, func() time.Duration { return took(ended) })
	testenv.Soon(t, "a turn was free after 50 ms and came", bar, func() time.Duration {
		free, give := make(chan struct{}), held[0]
		time.AfterFunc(50*time.Millisecond, func() { close(free); give() })
		d := took(t.Context())
		select {
		case <-free:
		default:
			if d < bar {
				t.Error("it did not wait")
			}
			<-free // whoever gives it back has slept longer than the one who waits
		}
		held[0] = st.Turn(t.Context())
		return d
	})
	for _, done := range held {
		done()
		done()
	}
	testenv.Soon(t, "a free turn came", bar, func() time.Duration { return took(t.Context()) })
}
