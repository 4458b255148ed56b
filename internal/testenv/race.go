//go:build race

package testenv

// Slower is how many times longer than usual a test may take.
const Slower = 10
