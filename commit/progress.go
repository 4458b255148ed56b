package commit

import (
	"io"
	"sync"
	"time"

	"github.com/kimg/kimg/store"
)

// Step is a part of a commit.
type Step string

// The steps, in their order. Each begins once and ends once at every place the image goes to, if the one before succeeded.
const (
	StepLayers   Step = "layers"   // the container is read, its layer made, and layers are copied
	StepConfig   Step = "config"   // the configuration
	StepManifest Step = "manifest" // the image is recorded, or published
	StepNaming   Step = "naming"   // it has its names
)

// Event says how far a step is.
type Event struct {
	Place string // empty: the store; else the destination as users write it
	Step  Step
	Start time.Time
	End   time.Time // zero while the step goes on
	Bytes int64     // of the layer that was made, or of what was written to the destination, in this step so far
	Err   error     // why the step failed, when it has ended

	// Layer is the layer of StepLayers that the event is about, which begins and ends like a step, while others do: the digest of what is
	// made or copied, or [NewLayer]. Then Bytes are those of the layer. Empty: the step as a whole.
	Layer string
	Total int64 // bytes that Layer has; negative: nobody knows yet
}

// NewLayer is what the container changed, while its digest is not known.
const NewLayer = "new"

// pause is how often a step that goes on is told.
const pause = 100 * time.Millisecond

// steps tells what happens at one place.
type steps struct {
	mu   sync.Mutex
	tell func(Event)
	now  Event
	last time.Time
	on   bool
}

// newSteps tells progress, which may be nil, and whoever listens to the store.
func newSteps(st *store.Store, progress func(Event), place string) *steps {
	return &steps{now: Event{Place: place}, tell: func(e Event) {
		if progress != nil {
			progress(e)
		}
		st.Tell(store.Event{
			Type: store.EventProgress, Op: "commit", Object: e.Place, Text: string(e.Step), Bytes: e.Bytes, Done: !e.End.IsZero(), Err: e.Err,
		})
	}}
}

// begin ends the step that is going on and begins another, unless it is the same.
func (s *steps) begin(step Step) {
	if s.on && s.now.Step == step {
		return
	}
	s.end(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = Event{Place: s.now.Place, Step: step, Start: time.Now()}
	s.last, s.on = s.now.Start, true
	s.tell(s.now)
}

// end ends the step that is going on, if one is.
func (s *steps) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return
	}
	s.on = false
	s.now.End, s.now.Err = time.Now(), err
	s.tell(s.now)
}

// layer begins to tell about one layer. The result may be nil: then nobody wants to know.
func (s *steps) layer(name string, total int64) *layerStep {
	if s == nil || s.tell == nil {
		return nil
	}
	l := &layerStep{steps: s, now: Event{Step: StepLayers, Start: time.Now(), Layer: name, Total: total}}
	l.say(func() bool { l.now.Place = s.now.Place; return true })
	return l
}

// layerStep tells about one layer.
type layerStep struct {
	steps *steps
	now   Event
	last  time.Time
}

// say tells what has changed, when it is worth it. No two events of a place are told at once.
func (l *layerStep) say(change func() bool) {
	if l == nil {
		return
	}
	l.steps.mu.Lock()
	defer l.steps.mu.Unlock()
	if change() {
		l.last = time.Now()
		l.steps.tell(l.now)
	}
}

// moved adds bytes that are done.
func (l *layerStep) moved(n int) {
	l.say(func() bool { l.now.Bytes += int64(n); return time.Since(l.last) >= pause })
}

// reached tells how many bytes are done.
func (l *layerStep) reached(bytes int64) {
	l.say(func() bool { l.now.Bytes = bytes; return time.Since(l.last) >= pause })
}

func (l *layerStep) end(err error) {
	l.say(func() bool { l.now.End, l.now.Err = time.Now(), err; return true })
}

// reached tells how many bytes of the step are done, but not too often.
func (s *steps) reached(bytes int64) { s.move(func(int64) int64 { return bytes }) }

func (s *steps) move(to func(int64) int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Bytes = to(s.now.Bytes)
	if now := time.Now(); s.on && now.Sub(s.last) >= pause {
		s.last = now
		s.tell(s.now)
	}
}

// counted is a reader whose bytes are those of a step, and of a layer, which may be nil.
type counted struct {
	io.Reader
	steps *steps
	layer *layerStep

	mu    sync.Mutex // a connection may still read what is sent again
	n     int
	stale bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stale {
		c.n += n
		c.moved(n)
	}
	return n, err
}

// forget takes back what was counted: it is read again. c may be nil.
func (c *counted) forget() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale = true
	c.moved(-c.n)
}

func (c *counted) moved(n int) {
	c.steps.move(func(before int64) int64 { return before + int64(n) })
	c.layer.moved(n)
}
