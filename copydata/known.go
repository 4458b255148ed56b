package copydata

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The operating systems and architectures that images are made for, as Go names them (OCI image specification,
// "Properties" of a configuration).
const (
	systems       = "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows"
	architectures = "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x sparc64 wasm"
)

// elsewhere is what other people call them.
const elsewhere = "x86_64=amd64 x86-64=amd64 x64=amd64 i386=386 i686=386 x86=386 aarch64=arm64 armv8=arm64 armhf=arm armel=arm armv7=arm " +
	"armv6=arm ppc64el=ppc64le macos=darwin win=windows win32=windows"

// oneOf accepts the words of a list.
func oneOf(list string) func(string) error {
	return func(s string) error {
		if slices.Contains(strings.Fields(list), s) {
			return nil
		}
		for _, other := range strings.Fields(elsewhere) {
			theirs, ours, _ := strings.Cut(other, "=")
			if strings.EqualFold(s, theirs) && slices.Contains(strings.Fields(list), ours) {
				return fmt.Errorf("called %s here", ours)
			}
		}
		return fmt.Errorf("none of %s", list)
	}
}

// variantOf accepts the variants of an architecture. Of those without known ones, any word will do.
func variantOf(architecture string) func(string) error {
	known := map[string]string{"arm": "v5 v6 v7 v8", "amd64": "v1 v2 v3 v4"}[architecture]
	return func(s string) error {
		if architecture == "arm64" {
			base, minor, hasMinor := strings.Cut(s, ".")
			if base != "v8" && base != "v9" || hasMinor && number(minor, 99) < 0 {
				return errors.New("not a variant of arm64: v8, v9, or one of those with a minor version")
			}
			return nil
		}
		if known == "" {
			return word(s)
		}
		if !slices.Contains(strings.Fields(known), s) {
			return fmt.Errorf("not a variant of %s: %s", architecture, known)
		}
		return nil
	}
}

// signal accepts the signals of Linux by name, with or without SIG, or by number.
func signal(s string) error {
	const names = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP " +
		"TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := number(s, 64); n >= 1 || slices.Contains(strings.Fields(names), name) {
		return nil
	}
	for _, end := range []struct {
		prefix string
		max    int64
	}{{"RTMIN+", 15}, {"RTMAX-", 14}} {
		if offset, ok := strings.CutPrefix(name, end.prefix); ok && number(offset, end.max) >= 1 {
			return nil
		}
	}
	return errors.New("not the name or number of a signal")
}
