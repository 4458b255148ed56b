package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
)

// Exit codes. There are no others, but for the commands that pass on the status of what they ran.
const (
	exitOK    = 0
	exitFail  = 1 // refused or failed, nothing changed
	exitUsage = 2 // wrong usage, nothing tried
)

// usageError is a command line that cannot be carried out as written.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef returns a usage error about a flag, an argument or a command.
func usagef(object, format string, args ...any) error {
	return usageError{kimg.Errorf(kimg.ErrInvalid, object, format, args...)}
}

// args checks the number of arguments of a command: at least min, and at most max unless that is negative.
func args(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usagef(cmd.Name(), "too few arguments; usage: %s", cmd.UseLine())
		case max >= 0 && len(args) > max:
			return usagef(cmd.Name(), "unexpected argument %s; usage: %s", kimg.Quote(args[max]), cmd.UseLine())
		}
		return nil
	}
}

// namesOrAll checks that a command got names or --all, and not both.
func namesOrAll(command string, all bool, names []string) error {
	switch {
	case all && len(names) > 0:
		return usagef("--all", "cannot be used together with names")
	case !all && len(names) == 0:
		return usagef(command, "give a name, or --all")
	}
	return nil
}

// status is the exit status of a program that kimg ran and passes on. It is not a failure of kimg: nothing is printed.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// errorJSON is the shape of a failure with --json, on standard error.
type errorJSON struct {
	Class   kimg.Class `json:"class"`
	Op      string     `json:"op"`
	Object  string     `json:"object"`
	Message string     `json:"message"`
}

// joined returns the first failure, which decides the class; a second one, of taking something back, follows it.
func joined(err, back error) error {
	if err == nil || back == nil {
		return cmp.Or(err, back)
	}
	return &kimg.Error{Class: kimg.ClassOf(err), Err: fmt.Errorf("%w; then: %w", err, back)}
}

// report prints a failure, one line, and returns the exit code for it.
func (a *app) report(op string, err error) int {
	var passed status
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &passed):
		return int(passed)
	}
	code := exitFail
	var wrong usageError
	if errors.As(err, &wrong) {
		code = exitUsage
	}
	var not notRun
	if errors.As(err, &not) {
		code = not.code
	}
	if interrupted := a.sig.exitCode(); interrupted != 0 {
		code = interrupted
		if kimg.ClassOf(err) != kimg.ErrInterrupted {
			err = &kimg.Error{Class: kimg.ErrInterrupted, Object: op, Err: err}
		}
	}
	if a.flags.json {
		a.reportJSON(op, err)
		return code
	}
	// Nobody is left to tell when standard error itself cannot be written.
	_, _ = fmt.Fprintf(a.err, "kimg: %s\n", kimg.Line(err))
	return code
}

func (a *app) reportJSON(op string, err error) {
	e := errorJSON{Class: kimg.ClassOf(err), Op: op}
	var classed *kimg.Error
	if errors.As(err, &classed) {
		e.Object = escape(classed.Object)
	}
	e.Message = kimg.Line(err)
	if data, err := versioned(e); err == nil {
		_, _ = a.err.Write(data)
	}
}
