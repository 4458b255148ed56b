package store

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// EventType says what kind of thing an event is.
type EventType string

// The types of events.
const (
	EventProgress EventType = "progress" // a step that takes long has begun, goes on or has ended
	EventWarning  EventType = "warning"  // something that did not stop what went on, and that the log has too
	EventResult   EventType = "result"   // something in the store is durably there, changed or gone
)

// Event is something that has happened. Members that say nothing about it are empty.
type Event struct {
	Type   EventType
	Time   time.Time
	Op     string // what was going on: from, commit, tag, rmi, rm, lease, gc, …
	Object string // what it happened to: a kind and an ID, as "image 4f0c…"; of progress the place, empty for the store
	Text   string // of a warning, one line; of progress the name of the step
	Bytes  int64  // of progress: done so far in this step
	Done   bool   // of progress: the step has ended
	Err    error  // why it has failed
}

// Listen hands what happens through this Store from now on to a logger and to a function; either may be nil. It is called before
// the store is used. The function is called while it happens, by any goroutine, and should return soon.
func (s *Store) Listen(log *slog.Logger, tell func(Event)) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s.log, s.tell = log, tell
	if tell != nil {
		s.log = slog.New(listener{log.Handler(), s})
	}
}

// Logger returns where the store logs to; it is never nil. Who works on the store and was given no logger uses it.
func (s *Store) Logger() *slog.Logger { return s.log }

// Tell hands an event on to whoever listens.
func (s *Store) Tell(e Event) {
	if s.tell == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.tell(e)
}

// listener makes warnings of what is logged as one.
type listener struct {
	slog.Handler
	s *Store
}

// Enabled implements slog.Handler.
func (l listener) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || l.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l listener) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		text := []string{r.Message}
		r.Attrs(func(a slog.Attr) bool {
			text = append(text, a.String())
			return true
		})
		l.s.Tell(Event{Type: EventWarning, Time: r.Time, Text: strings.ReplaceAll(strings.Join(text, "; "), "\n", "; ")})
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	return listener{l.Handler.WithAttrs(attrs), l.s}
}

// WithGroup implements slog.Handler.
func (l listener) WithGroup(name string) slog.Handler {
	return listener{l.Handler.WithGroup(name), l.s}
}

// results tells what a change has recorded.
func (tx *Tx) results(op string) {
	last := ""
	for _, st := range tx.steps {
		if strings.Contains(st.what, " ") && st.what != last { // others are parts of such a step
			tx.s.Tell(Event{Type: EventResult, Op: op, Object: st.what})
		}
		last = st.what
	}
}
