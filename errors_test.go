package kimg_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/kimg/kimg"
)

func TestClassOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want kimg.Class
	}{
		{nil, ""},
		{kimg.ErrBusy, kimg.ErrBusy},
		{fmt.Errorf("a: %w", kimg.ErrState), kimg.ErrState},
		{kimg.Errorf(kimg.ErrLimit, "x", "y"), kimg.ErrLimit},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOSPC}, kimg.ErrNoSpace},
		{syscall.EDQUOT, kimg.ErrNoSpace},
		{syscall.EROFS, kimg.ErrReadOnly},
		{syscall.EIO, kimg.ErrIO},
		{syscall.EPERM, kimg.ErrDenied},
		{fs.ErrNotExist, kimg.ErrNotFound},
		{context.Canceled, kimg.ErrInterrupted},
		{errors.New("odd"), kimg.ErrInternal},
		{kimg.Wrap("x", syscall.ENOENT), kimg.ErrNotFound},
		{kimg.Errorf(kimg.ErrDamaged, "x", "%w", syscall.ENOENT), kimg.ErrDamaged},
	} {
		if got := kimg.ClassOf(c.err); got != c.want {
			t.Errorf("ClassOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
	if text := kimg.Wrap("y", kimg.Wrap("x", kimg.Wrap("x", syscall.ENOENT))).Error(); text != "y: x: "+syscall.ENOENT.Error() {
		t.Error(text) // each object once
	}
	if kimg.Wrap("x", nil) != nil {
		t.Error("Wrap of nil is not nil")
	}
}

func TestLine(t *testing.T) {
	err := fmt.Errorf("commit: %w", kimg.Errorf(kimg.ErrInvalid, "a\x1b[2J\nb", "cause \xff %w", syscall.ENOENT))
	got := kimg.Line(err)
	want := `invalid: commit: a\x1b[2J\x0ab: cause \xff no such file or directory`
	if got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
	if !errors.Is(err, kimg.ErrInvalid) || !errors.Is(err, syscall.ENOENT) {
		t.Error("errors.Is does not see through the wrapping")
	}
	if long := kimg.Line(errors.New(strings.Repeat("é", 5000))); len(long) > 1024 || !strings.HasSuffix(long, "…") {
		t.Errorf("a long line has %d bytes", len(long))
	}
}

func TestEscapeBounds(t *testing.T) {
	for _, in := range []string{"", "abc", "\x00\x00\x00", strings.Repeat("x", 300), "ab\u202ecd", "日本語テキスト"} {
		for max := 3; max < 20; max++ {
			if got := kimg.Escape(in, max); len(got) > max {
				t.Errorf("Escape(%q, %d) has %d bytes", in, max, len(got))
			}
		}
	}
}
