package main

import (
	"sync"
	"time"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store/transfer"
)

// step tells about the one step that a command is, and about the layers that it moves.
type step struct {
	tell   func(commit.Event) // nil: nobody wants to know
	mu     sync.Mutex
	now    commit.Event
	layers map[string]int64 // bytes of each so far
	last   time.Time
}

// oneStep runs a command that is one step at a place, and tells in a form how far it is. The namespace was entered before.
func (a *app) oneStep(name commit.Step, place, form string, quiet bool, run func(*step) error) error {
	tell, end, err := a.progressTo(form, quiet)
	if err != nil {
		return err
	}
	defer end()
	s := &step{tell: tell, now: commit.Event{Place: place, Step: name, Start: time.Now()}, layers: map[string]int64{}}
	if tell == nil {
		return run(s)
	}
	tell(s.now)
	err = run(s)
	s.now.End, s.now.Err = time.Now(), err
	tell(s.now)
	return err
}

// layer tells how far a layer of an image is, and so how far the step is, ten times a second at most. Any goroutine calls it.
func (s *step) layer(image string, e transfer.Event) {
	if s.tell == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := image + " " + e.Digest.String()
	s.now.Bytes += e.Bytes - s.layers[key]
	s.layers[key] = e.Bytes
	if now := time.Now(); now.Sub(s.last) >= 100*time.Millisecond && s.now.Bytes > 0 {
		s.last = now
		s.tell(s.now)
	}
	if !e.Skipped {
		s.tell(commit.Event{Place: image, Step: commit.StepLayers, Layer: e.Digest.String(), Start: e.Start, End: e.End, Bytes: e.Bytes, Total: e.Size, Err: e.Err})
	}
}
