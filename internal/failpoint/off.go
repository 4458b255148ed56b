//go:build !kimg_failpoints

package failpoint

// Enabled tells whether this build can fail on purpose.
const Enabled = false

// Here does nothing in this build.
func Here(string) error { return nil }
