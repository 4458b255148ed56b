package registry

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
)

// Patience says how long somebody bears with a registry (failure model, limits). 429 is answered by the image library, which waits as
// long as the registry asks, a minute at most each time, and asks five times: as with podman and skopeo, a registry that wants an hour ends
// in class ratelimit after five minutes.
type Patience struct {
	Retries int           // after the first attempt
	Pause   time.Duration // before the first of them; each is twice as long as the one before, ± 20 %
	Idle    time.Duration // without a byte
	Logger  *slog.Logger  // of retries
	Limited bool          // what is refused with 429 is tried again here: the library does not when something is sent

	hosts  []string // that may see the logins; none: nobody looks
	others bool     // there are mirrors, and the library asks one after the other
}

// Patient returns the patience of the failure model's limits where a number is 0: 3 retries, the first after a second, and a minute
// without a byte. Negative retries: none.
func Patient(retries int, pause, idle time.Duration, logger *slog.Logger) Patience {
	return Patience{Retries: max(cmp.Or(retries, 3), 0), Pause: cmp.Or(pause, time.Second), Idle: cmp.Or(idle, time.Minute), Logger: logger}
}

// For is the patience with one repository, which sends its logins to that registry and its mirrors only.
func (p Patience) For(sys *types.SystemContext, repo reference.Named) Patience {
	p.hosts = hosts(sys, repo)
	return p
}

// Retry does something, and again while it fails as registries do that will be well soon. The error has its class.
func (p Patience) Retry(ctx context.Context, do func() error) error {
	return p.again(ctx, func() error { return Classify(do()) }, p.Passing)
}

func (p Patience) again(ctx context.Context, do func() error, passing func(error) bool) error {
	for n := 0; ; n++ {
		err := do()
		if err == nil || n >= p.Retries || !passing(err) || ctx.Err() != nil {
			return err
		}
		if err := p.Wait(ctx, n, err); err != nil {
			return err
		}
	}
}

// Ask is Retry for something small: when nothing comes it has failed.
func (p Patience) Ask(ctx context.Context, do func(context.Context) error) error {
	return p.Retry(ctx, func() error {
		watched := p.Watch(ctx)
		defer watched.Stop()
		return watched.because(do(watched))
	})
}

// grace is how long what was cancelled may take to notice it.
const grace = 50 * time.Millisecond

// Open is Ask for what begins to speak to a registry. That may run a program, a credential helper, which knows of no context: when ctx
// ends it is left behind, and what it opens after that is closed. A host that is silent does not keep the library from asking the next one.
func Open[S any](ctx context.Context, p Patience, do func(context.Context) (S, error)) (at S, err error) {
	p.others = len(p.hosts) > 2
	err = p.Ask(ctx, func(ctx context.Context) (err error) {
		done, left := make(chan func()), make(chan struct{})
		defer close(left)
		go func() {
			fresh, failed := do(ctx)
			select {
			case done <- func() { at, err = fresh, failed }:
			case <-left:
				if c, ok := any(fresh).(io.Closer); ok && failed == nil {
					_ = c.Close() // nothing was said through it
				}
			}
		}()
		select {
		case take := <-done:
			take()
		case <-ctx.Done():
			select {
			case take := <-done:
				take()
			case <-time.After(grace):
				return ctx.Err()
			}
		}
		return err
	})
	return at, err
}

// Because returns what ended a context, when that made something fail.
func Because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Wait waits before retry n, counted from 0.
func (p Patience) Wait(ctx context.Context, n int, why error) error {
	pause := time.Duration(float64(p.Pause<<n) * (0.8 + 0.4*rand.Float64()))
	p.Logger.InfoContext(ctx, "the registry is asked again", "in", pause, "because", kimg.Line(why))
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Passing tells whether a failure may be over when the same is tried again: a server in trouble, a connection that broke.
func (p Patience) Passing(err error) bool {
	var status docker.UnexpectedHTTPStatusError
	var no net.Error
	var nothing idle
	var again renewed
	switch {
	case errors.As(err, &again):
		return true
	case errors.As(err, &status):
		return slices.Contains([]int{500, 502, 503, 504}, status.StatusCode)
	case errors.As(err, &nothing), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF),
		errors.As(err, &no) && no.Timeout():
		return true
	case kimg.ClassOf(err) == kimg.ErrRateLimit:
		return p.Limited || errors.As(err, new(hurried))
	case kimg.ClassOf(err) != kimg.ErrNetwork:
		return false
	}
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc([]string{
		"statuscode: 500", "statuscode: 502", "statuscode: 503", "statuscode: 504", "status 500", "status 502", "status 503", "status 504",
		"500 internal", "502 bad", "503 service", "504 gateway", "unknown: unknown error", "unknown error", "service unavailable", "unexpected eof", ": eof",
		"server closed", "connection reset", "broken pipe",
		"request to an https server", "request was sent to https", // without verification HTTP is tried when TLS failed
	}, func(word string) bool { return strings.Contains(text, word) })
}
