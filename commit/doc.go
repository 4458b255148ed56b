// Package commit turns a working container into an image.
//
// There are two roads, and they meet in one plan. [Container] writes the image into the container's own store: the
// container's upper directory is walked once, and the same read is hashed, recorded for tar-split and copied into a
// staged layer; then layer and image are recorded. [Reference] is the same image as a types.ImageReference that
// copy.Image carries to any transport: one pass learns the digests, a second produces the bytes when they are asked for.
// [Copy] is that road for tools that have no copy options of their own.
//
// Nothing is written to a temporary directory, and no lock of the store is held while data streams.
package commit
