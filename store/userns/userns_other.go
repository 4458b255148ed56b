//go:build !linux

package userns

import (
	"runtime"

	"github.com/kimg/kimg"
)

// Init does nothing here: there are no namespaces.
func Init() {}

// Needed is false here: there are no namespaces.
func Needed() bool { return false }

// Run always fails here, with class unsupported.
func Run(Options) (int, error) { return 1, unsupported() }

// Outside returns the path: without namespaces inside and outside are the same.
func Outside(path string) (string, error) { return path, nil }

// Kept is true here: without namespaces a mount stays.
func Kept() bool { return true }

// RuntimeDir is empty here.
func RuntimeDir() string { return "" }

func unsupported() error {
	return kimg.Errorf(kimg.ErrUnsupported, "user namespace", "not available on %s", runtime.GOOS)
}
