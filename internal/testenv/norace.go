//go:build !race

package testenv

// Slower is how many times longer than usual a test may take: once, but for the race detector.
const Slower = 1
