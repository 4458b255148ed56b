package registry_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/tests/faults"
)

// unhurried does something that must go well however long the idle time-out is, but for a machine that is busy with something else for
// as long as that: then it is done with a longer one.
func unhurried(t *testing.T, do func(idle time.Duration) error) {
	t.Helper()
	var err error
	for idle := 100 * time.Millisecond; idle < 30*time.Second; idle *= 6 {
		if err = do(idle); err == nil {
			return
		}
	}
	t.Error(err)
}

func impatient(idle time.Duration) registry.Patience {
	return registry.Patient(-1, time.Millisecond, idle, slog.New(slog.DiscardHandler))
}

// A registry is idle when it answers nothing, not when many answers together take long, nor while what is sent or read has to wait for
// something else.
func TestNotIdle(t *testing.T) {
	s := &faults.Registry{}
	var takes atomic.Int64
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(takes.Load()))
		s.ServeHTTP(w, r)
	})
	unhurried(t, func(idle time.Duration) error {
		takes.Store(0)
		to := create(t, h, impatient(time.Minute))
		defer to.Close()
		to.Idle = idle
		takes.Store(int64(idle * 2 / 3))
		_, _, err := to.Put(t.Context(), digest.FromString("slow"), 4, slow{strings.NewReader("slow"), 2 * idle})
		return err
	})
	unhurried(t, func(idle time.Duration) error {
		w := impatient(idle).Watch(t.Context())
		defer w.Stop()
		r := w.Body(io.NopCloser(strings.NewReader("body")))
		for range 2 {
			time.Sleep(2 * idle)
			if _, err := r.Read(make([]byte, 2)); err != nil {
				return err
			}
		}
		time.Sleep(2 * idle)
		return context.Cause(w)
	})
}

type slow struct {
	io.Reader
	takes time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(s.takes)
	return s.Reader.Read(p)
}

// A body of which nothing comes is idle.
func TestIdleBody(t *testing.T) {
	w := impatient(10 * time.Millisecond).Watch(t.Context())
	defer w.Stop()
	silent, end := io.Pipe()
	context.AfterFunc(w, func() { _ = end.CloseWithError(io.ErrClosedPipe) })
	if _, err := w.Body(silent).Read(make([]byte, 1)); kimg.ClassOf(registry.Because(w, err)) != kimg.ErrNetwork {
		t.Errorf("%v, %v", err, context.Cause(w))
	}
}

type opened chan struct{}

func (o opened) Close() error {
	close(o)
	return nil
}

// What opens after nobody waits for it any longer is closed.
func TestOpenedTooLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	late, goOn := make(opened), make(chan struct{})
	_, err := registry.Open(ctx, impatient(time.Minute), func(context.Context) (opened, error) {
		cancel()
		<-goOn
		return late, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(goOn)
	<-late
}
