//go:build linux

package userns

import (
	"os"
	"syscall"
	"testing"

	"github.com/containers/storage/pkg/reexec"
)

// TestMain is also the main of the helper programs: with actionEnv set this binary does what a command of kimg would do.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	Init()
	if action, ok := os.LookupEnv(actionEnv); ok {
		os.Exit(act(action))
	}
	syscall.Umask(0o022) // other users must be able to read what is made for them
	os.Exit(m.Run())
}
