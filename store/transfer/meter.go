package transfer

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Event says how far a layer is.
type Event struct {
	Layer   int // of an image that comes into a store, base first
	Digest  digest.Digest
	Start   time.Time
	End     time.Time // zero while it goes on
	Bytes   int64     // of the blob, moved so far
	Size    int64     // of the blob; -1: not known
	Skipped bool      // the store has it
	Err     error     // why it failed, when it has ended
}

// pause is how often a layer that goes on is told.
const pause = 100 * time.Millisecond

// Meter tells how far one layer is. Any goroutine may use it.
type Meter struct {
	tell func(Event)
	mu   sync.Mutex
	now  Event
	last time.Time
}

// NewMeter tells that a layer begins, as e says. Nil for tell: nobody wants to know.
func NewMeter(e Event, tell func(Event)) *Meter {
	m := &Meter{now: e, tell: tell}
	m.say()
	return m
}

func (m *Meter) say() {
	if m.tell != nil {
		m.tell(m.now)
	}
}

// Write counts bytes of the blob, and tells it, ten times a second at most. It never fails.
func (m *Meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Bytes += int64(len(p))
	if now := time.Now(); now.Sub(m.last) >= pause {
		m.last = now
		m.say()
	}
	return len(p), nil
}

// again forgets what was counted.
func (m *Meter) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Bytes = 0
}

// End tells that the layer has ended. A source that blocks may still be read from, when that was cancelled.
func (m *Meter) End(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.End, m.now.Err = time.Now(), err
	m.say()
}
