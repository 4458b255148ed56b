//go:build unix

package kimg

import "syscall"

func classOfErrno(no syscall.Errno) (Class, bool) {
	switch no {
	case syscall.ENOENT, syscall.ESRCH:
		return ErrNotFound, true
	case syscall.EEXIST, syscall.ENOTEMPTY:
		return ErrExists, true
	case syscall.EACCES, syscall.EPERM:
		return ErrDenied, true
	case syscall.ENOSPC, syscall.EDQUOT:
		return ErrNoSpace, true
	case syscall.EROFS:
		return ErrReadOnly, true
	case syscall.EIO:
		return ErrIO, true
	case syscall.EBUSY, syscall.ETXTBSY, syscall.EAGAIN:
		return ErrBusy, true
	case syscall.ENOTSUP, syscall.ENOSYS:
		return ErrUnsupported, true
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM:
		return ErrLimit, true
	case syscall.ELOOP, syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.EINVAL:
		return ErrInvalid, true
	case syscall.EINTR:
		return ErrInterrupted, true
	}
	return "", false
}
