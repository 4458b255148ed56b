package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/kimg/kimg/commit"
)

// patience is how long a commit may take before anything is drawn: most are done by then.
const patience = 300 * time.Millisecond

// bars draws a line for every step of a commit on a terminal, and a bar for every layer.
type bars struct {
	out *os.File

	mu     sync.Mutex
	timer  *time.Timer
	early  []commit.Event // until something is drawn
	all    *mpb.Progress  // from then on
	open   map[string]*mpb.Bar
	closed bool
}

func newBars(out *os.File) *bars { return &bars{out: out, open: map[string]*mpb.Bar{}} }

// event takes one event.
func (b *bars) event(e commit.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all != nil {
		b.draw(e)
		return
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(patience, b.show)
	}
	b.early = append(b.early, e)
}

// show begins to draw.
func (b *bars) show() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.all = mpb.New(mpb.WithOutput(b.out), mpb.WithWidth(64), mpb.PopCompletedMode())
	for _, e := range b.early {
		b.draw(e)
	}
}

// draw draws one event.
func (b *bars) draw(e commit.Event) {
	what := string(e.Step)
	if e.Layer != "" {
		what = "layer " + short(e.Layer)
	}
	if e.Place != "" {
		what = escape(e.Place) + ": " + what
	}
	key := e.Place + " " + string(e.Step) + " " + e.Layer
	bar := b.open[key]
	if bar == nil {
		bar = b.begin(e, what)
		b.open[key] = bar
	}
	bar.SetCurrent(e.Bytes)
	if e.End.IsZero() {
		return
	}
	delete(b.open, key)
	if e.Err != nil {
		bar.Abort(false)
	} else {
		bar.SetTotal(-1, true)
	}
}

// begin adds a line.
func (b *bars) begin(e commit.Event, what string) *mpb.Bar {
	name := mpb.PrependDecorators(decor.Name(what, decor.WCSyncSpaceR))
	size := decor.OnAbort(decor.OnComplete(decor.Any(func(s decor.Statistics) string { return megabytes(s.Current) + " " }), "done "), "failed ")
	switch {
	case e.Layer == "":
		return b.all.New(0, mpb.NopStyle(), name, mpb.AppendDecorators(size, decor.Elapsed(decor.ET_STYLE_MMSS)))
	case e.Total <= 0:
		return b.all.New(0, mpb.SpinnerStyle(), name, mpb.AppendDecorators(size))
	}
	bar := b.all.New(0, mpb.BarStyle(), name, mpb.AppendDecorators(size, decor.Name("of "+megabytes(e.Total))))
	bar.SetTotal(e.Total, false)
	return bar
}

// Write writes lines above the bars.
func (b *bars) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		return b.out.Write(p)
	}
	return b.all.Write(p)
}

// close ends the drawing: whatever is written afterwards comes below.
func (b *bars) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed = true; b.all == nil {
		return
	}
	for _, bar := range b.open {
		bar.Abort(true)
	}
	b.all.Wait()
	b.all = nil
}

// short is a digest as people know it.
func short(layer string) string {
	_, hex, _ := strings.Cut(layer, ":")
	if len(hex) < 12 {
		return escape(layer)
	}
	return hex[:12]
}

func megabytes(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
