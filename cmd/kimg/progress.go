package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/commit"
)

const progressUsage = "tell on standard error how far it is, in a `form`: auto (bars on a terminal, else nothing), plain, json or none"

// progressFlags are the flags of commands that can take long.
func progressFlags(f *pflag.FlagSet, form *string, quiet *bool) {
	f.StringVar(form, "progress", "auto", progressUsage)
	f.BoolVarP(quiet, "quiet", "q", false, "no progress, unless --progress asks for it")
}

// progressTo returns what tells on standard error how far a commit is, nil when nobody wants to know, and what must be called
// when the commit has ended.
func (a *app) progressTo(form string, quiet bool) (tell func(commit.Event), end func(), err error) {
	p := &progress{w: a.err}
	end = func() {}
	f, _ := a.err.(*os.File)
	switch form {
	case "auto":
		if quiet || a.flags.json || f == nil || !terminal(f) {
			return nil, end, nil
		}
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err != nil || size.Col == 0 || size.Row == 0 {
			return p.plain, end, nil // no room for bars, or nobody knows
		}
		b := newBars(f)
		level, err := logLevel(a.flags.logLevel)
		a.log = newLogger(b, level, false) // above the bars, not across them
		bridgeLogrus(a.log, level)
		return b.event, b.close, err
	case "plain":
		return p.plain, end, nil
	case "json":
		return p.json, end, nil
	case "none":
		return nil, end, nil
	}
	return nil, end, usagef("--progress", "not one of auto, plain, json and none")
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

// plain writes a line when a step begins and one when it ends. Layers are for bars.
func (p *progress) plain(e commit.Event) {
	if e.Layer != "" || e.End.IsZero() && e.Bytes > 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintln(p.w, line(e))
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

// json writes every event of a step as an object on a line of its own.
func (p *progress) json(e commit.Event) {
	if e.Layer != "" {
		return
	}
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
