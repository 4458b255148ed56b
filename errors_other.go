//go:build !unix

package kimg

import "syscall"

func classOfErrno(syscall.Errno) (Class, bool) { return "", false }
