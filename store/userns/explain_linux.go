package userns

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/kimg/kimg"
)

// object is what the errors of this package are about.
const object = "user namespace"

// barriers are the switches with which a system forbids unprivileged user namespaces, and the value that does so.
var barriers = []struct{ file, value, name string }{
	{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=0"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=1"},
}

// barrier returns the switch that is in the way here, as sysctl writes it, or nothing.
func barrier() string {
	for _, b := range barriers {
		data, err := os.ReadFile(b.file)
		if err == nil && strings.TrimSpace(string(data)) == b.value {
			return b.name
		}
	}
	return ""
}

// explainClone says why the kernel refused a new user namespace.
func explainClone(err error) error {
	for _, no := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.ENOSYS, syscall.EINVAL} {
		if !errors.Is(err, no) {
			continue
		}
		if b := barrier(); b != "" {
			return kimg.Errorf(kimg.ErrDenied, object, "the system forbids new ones (sysctl %s): %w", b, err)
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS) {
			return kimg.Errorf(kimg.ErrDenied, object, "too many exist (sysctl user.max_user_namespaces) or they are nested too deep: %w", err)
		}
		return kimg.Errorf(kimg.ErrDenied, object,
			"the kernel refused a new one; a seccomp or security profile, as of a container, may forbid it: %w", err)
	}
	return kimg.Wrap(object, err)
}

// explainStart says why a child did not come up in the namespace it got.
func explainStart(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		if b := barrier(); b != "" {
			return kimg.Errorf(kimg.ErrDenied, object, "the system forbids using new ones (sysctl %s): %w", b, err)
		}
		return kimg.Errorf(kimg.ErrDenied, object, "%w", err)
	}
	return kimg.Errorf(kimg.ErrDenied, object, "cannot start in it: %w", err)
}
