//go:build linux

package treecopy_test

import (
	"testing"

	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) { asroot.Main(m) }
