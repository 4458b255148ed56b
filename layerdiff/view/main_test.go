//go:build linux

package view_test

import (
	"os"
	"testing"

	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) {
	asroot.Enter()
	os.Exit(asroot.Run(m))
}
