package storetest_test

import (
	"testing"

	"github.com/kimg/kimg/store/storetest"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) { asroot.Main(m) }

// TestStores runs the table over every kind of store; its mounts are row X1.
func TestStores(t *testing.T) {
	for _, k := range storetest.Kinds() {
		t.Run(k.String(), func(t *testing.T) { storetest.Run(t, k.New) })
	}
}
