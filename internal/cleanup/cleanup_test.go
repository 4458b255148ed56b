package cleanup

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/kimg/kimg"
)

func TestRunGoesBackwardsAndPastFailures(t *testing.T) {
	var s Stack
	var order []int
	first, third := errors.New("first"), errors.New("third")
	for i, err := range []error{first, nil, third} {
		s.Add(func(context.Context) error { order = append(order, i); return err })
	}
	s.Add(func(context.Context) error { panic("in a step") })
	err := s.Run(t.Context())
	if !slices.Equal(order, []int{2, 1, 0}) {
		t.Errorf("order %v", order)
	}
	if !errors.Is(err, first) || !errors.Is(err, third) || !errors.Is(err, kimg.ErrInternal) {
		t.Errorf("not every failure is reported: %v", err)
	}
	if s.Len() != 0 || s.Run(t.Context()) != nil {
		t.Error("steps were kept after Run")
	}
}

func TestRunOutlivesCancellation(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	cancel()
	var s Stack
	s.Add(func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		if ctx.Value(key{}) != "value" {
			t.Error("the values of the context are gone")
		}
		return ctx.Err()
	})
	if err := s.Run(ctx); err != nil {
		t.Errorf("the step saw %v", err)
	}
}

func TestClear(t *testing.T) {
	var s Stack
	s.Add(func(context.Context) error { t.Error("ran after Clear"); return nil })
	s.Clear()
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
