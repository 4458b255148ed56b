package kimg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Class is one of the error classes every failure of kimg belongs to. A class is itself an error, so that
//
//	errors.Is(err, kimg.ErrNotFound)
//
// answers through every wrapping. The text of a class is the word that users and scripts see.
type Class string

// The error classes. Nothing else is ever reported.
const (
	ErrNotFound    Class = "notfound"    // an object is absent
	ErrExists      Class = "exists"      // an object is already there: a name in use, a destination that is not empty
	ErrInvalid     Class = "invalid"     // malformed or ambiguous input
	ErrIntegrity   Class = "integrity"   // a digest, size or diffID does not match, a stream is cut short
	ErrLimit       Class = "limit"       // the input exceeds a limit kimg holds itself to
	ErrUnsupported Class = "unsupported" // well-formed, but a type, algorithm, driver or platform kimg does not do
	ErrUnsafe      Class = "unsafe"      // a path, link, device or file type that input must not choose
	ErrState       Class = "state"       // a container's state file is damaged or belongs to another container
	ErrDamaged     Class = "damaged"     // the store itself is inconsistent; kimg check says where
	ErrDenied      Class = "denied"      // permission denied, no subordinate ids
	ErrNoSpace     Class = "nospace"     // the disk or the quota is full
	ErrReadOnly    Class = "readonly"    // the file system or the store is read-only
	ErrIO          Class = "io"          // the device failed
	ErrNetwork     Class = "network"     // a registry cannot be reached or answers nonsense
	ErrAuth        Class = "auth"        // a registry refused the credentials
	ErrRateLimit   Class = "ratelimit"   // a registry asked to come back later
	ErrTLS         Class = "tls"         // a certificate was not accepted
	ErrBusy        Class = "busy"        // a lock or an object is in use
	ErrInterrupted Class = "interrupted" // the caller or a signal cancelled the work
	ErrInternal    Class = "internal"    // a bug in kimg
)

// Error returns the word of the class.
func (c Class) Error() string { return string(c) }

// Error is a failure with its class and the object it happened to.
type Error struct {
	Class  Class  // what kind of failure; never empty
	Object string // what was being worked on: an image, a path, a container; may be empty
	Err    error  // the cause; may be nil when Class and Object say everything
}

// Error returns "object: cause", without the class: [Line] puts that in front once, however deep the wrapping.
func (e *Error) Error() string {
	switch {
	case e.Err == nil && e.Object == "":
		return string(e.Class)
	case e.Err == nil:
		return e.Object
	case e.Object == "":
		return e.Err.Error()
	}
	return e.Object + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's class. An outer class hides an inner one: the caller that
// re-classified a failure knew more than the one that reported it, so [ClassOf] looks from the outside in.
func (e *Error) Is(target error) bool {
	c, ok := target.(Class)
	return ok && c == e.Class
}

// Errorf returns an [Error] of a class about an object. The format may use %w.
func Errorf(class Class, object, format string, args ...any) error {
	return &Error{Class: class, Object: object, Err: fmt.Errorf(format, args...)}
}

// Wrap names the object a failure happened to, unless the failure does, and keeps the failure's own class. Wrap(…, nil) is nil.
func Wrap(object string, err error) error {
	if e, ok := err.(*Error); err == nil || ok && e.Object == object {
		return err
	}
	return &Error{Class: ClassOf(err), Object: object, Err: err}
}

// ClassOf returns the class of an error: the outermost [Error] or [Class] in its chain, else what the operating system's
// error number or the context says, else [ErrInternal]. ClassOf(nil) is empty.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	var c Class
	if errors.As(err, &c) {
		return c
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return ErrInterrupted
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		if class, ok := classOfErrno(no); ok {
			return class
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case errors.Is(err, fs.ErrExist):
		return ErrExists
	case errors.Is(err, fs.ErrPermission):
		return ErrDenied
	}
	return ErrInternal
}
