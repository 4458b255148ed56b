// Package shortlife makes a program start faster when it is imported: no garbage is collected before the program holds
// 32 MiB. Most commands end before that, and spent a third of their time collecting what others had set up for good.
// After that garbage is at most half of what is in use, not as much again: what comes to much memory here are buffers that
// others use once, which cost little to collect. It is for commands, not for libraries; GOGC and GOMEMLIMIT in the environment
// are left to mean what they mean.
package shortlife

import (
	"os"
	"runtime"
	"runtime/debug"
)

// first is how much memory, in bytes, the program holds when garbage is collected for the first time.
const first = 32 << 20

// later is how much garbage is collected from then on, in percent of what is in use.
const later = 50

// Package variables of other packages are most of the garbage. This one imports little and its path comes early in the
// order of the language, so most of them are made after it.
func init() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(first)
	runtime.AddCleanup(new([16]byte), func(struct{}) { // when garbage is collected, and this is some
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(later)
	}, struct{}{})
}
