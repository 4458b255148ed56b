package shortlife

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// TestBackToNormal: after the first collection the collector works by itself.
func TestBackToNormal(t *testing.T) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return // the environment decides
	}
	for deadline := time.Now().Add(10 * time.Second); debug.SetMemoryLimit(-1) == first; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the limit of the start stays")
		}
		runtime.GC()
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		t.Errorf("memory limit is %d", limit)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // set after the limit
		percent := debug.SetGCPercent(later)
		if percent == later {
			return
		}
		if debug.SetGCPercent(percent); time.Now().After(deadline) {
			t.Fatalf("GOGC is %d", percent)
		}
	}
}
