package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/kimg/kimg/commit"
)

// progressTo returns what tells on standard error how far a commit is, nil when nobody wants to know.
func (a *app) progressTo(form string, quiet bool) (func(commit.Event), error) {
	p := &progress{w: a.err}
	f, _ := a.err.(*os.File)
	switch form {
	case "auto":
		if quiet || a.flags.json || f == nil || !terminal(f) {
			return nil, nil
		}
		return p.bar, nil
	case "plain":
		return p.plain, nil
	case "json":
		return p.json, nil
	case "none":
		return nil, nil
	}
	return nil, usagef("--progress", "not one of auto, plain, json and none")
}

// progress writes events. What cannot be written is not missed.
type progress struct {
	mu sync.Mutex
	w  io.Writer
}

// line says one event in words.
func line(e commit.Event) string {
	text := string(e.Step)
	if e.Place != "" {
		text = e.Place + ": " + text
	}
	if e.Bytes > 0 {
		text += fmt.Sprintf(" %.1f MB", float64(e.Bytes)/1e6)
	}
	switch {
	case e.End.IsZero():
		return escape(text)
	case e.Err != nil:
		return escape(text + " failed")
	}
	return escape(fmt.Sprintf("%s done in %.1f s", text, e.End.Sub(e.Start).Seconds()))
}

// plain writes a line when a step begins and one when it ends.
func (p *progress) plain(e commit.Event) {
	if e.End.IsZero() && e.Bytes > 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintln(p.w, line(e))
}

// bar keeps one line of the terminal up to date.
func (p *progress) bar(e commit.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := ""
	if !e.End.IsZero() {
		end = "\n"
	}
	_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s%s", line(e), end)
}

// eventJSON is one event in results.
type eventJSON struct {
	Place string      `json:"place"` // empty: the store
	Step  commit.Step `json:"step"`
	Start time.Time   `json:"start"`
	End   *time.Time  `json:"end"` // null while it goes on
	Bytes int64       `json:"bytes"`
	Error string      `json:"error"` // empty: none
}

// json writes every event as an object on a line of its own.
func (p *progress) json(e commit.Event) {
	j := eventJSON{Place: e.Place, Step: e.Step, Start: e.Start, Bytes: e.Bytes}
	if !e.End.IsZero() {
		j.End = &e.End
	}
	if e.Err != nil {
		j.Error = escape(e.Err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if data, err := versioned(j); err == nil {
		_, _ = p.w.Write(data)
	}
}
