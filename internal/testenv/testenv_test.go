package testenv_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
)

// recorder stands in for a test: it notes what would have happened to it.
type recorder struct {
	testing.TB
	verdict string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.verdict = "fatal: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) {
	r.verdict = "skip: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func verdict(f func(testing.TB)) string {
	r := &recorder{}
	done := make(chan struct{})
	go func() { defer close(done); f(r) }()
	<-done
	return r.verdict
}

func TestNeed(t *testing.T) {
	need := func(t testing.TB) { testenv.Need(t, "sh", "no-such-program-anywhere") }
	for _, tt := range []struct{ ci, want string }{
		{"", "skip: needs the program no-such-program-anywhere"},
		{"true", "fatal: may not be skipped with CI=true: needs the program no-such-program-anywhere"},
	} {
		t.Setenv("CI", tt.ci)
		if got := verdict(need); got != tt.want {
			t.Errorf("CI=%q: %q, want %q", tt.ci, got, tt.want)
		}
	}
	if got := verdict(func(t testing.TB) { testenv.Need(t, "sh") }); got != "" {
		t.Errorf("a program that is there: %q", got)
	}
}

// TestHalves holds that a test is left out for its user only when the suite's other run has it.
func TestHalves(t *testing.T) {
	for _, tt := range []struct {
		root                         bool   // what the test wants
		ci, rootless, asRoot, asUser string // the environment, and the verdict by who runs this
	}{
		{true, "true", "1", "", "skip: needs real root: runs in the suite's other half"},
		{true, "true", "", "", "fatal: may not be skipped with CI=true: needs real root"},
		{true, "", "", "", "skip: needs real root"},
		{false, "true", "", "skip: needs an ordinary user: runs in the suite's other half", ""},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv("KIMG_TEST_ROOTLESS", tt.rootless)
		want, ask := tt.asUser, testenv.Ordinary
		if tt.root {
			ask = testenv.Root
		}
		if testenv.IsRoot() {
			want = tt.asRoot
		}
		if got := verdict(func(t testing.TB) { ask(t) }); got != want {
			t.Errorf("%+v: %q, want %q", tt, got, want)
		}
	}
}
