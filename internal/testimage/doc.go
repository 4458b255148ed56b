// Package testimage makes the test data of the project from seeds: images, trees, hostile archives. It imports nothing of
// ours, so that test data never comes from the code it tests.
package testimage
