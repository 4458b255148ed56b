// Package kimg is the front door of a container-image storage engine in pure Go. It holds the error classes that every
// package of the module reports; the work is done by the packages below it:
//
//   - [github.com/kimg/kimg/convert]: the bytes of one image format become the bytes of another. Pure.
//   - [github.com/kimg/kimg/copydata]: one container's state, the OCI and the Docker configuration side by side.
//   - [github.com/kimg/kimg/layerdiff]: what a container changed, as a change list, a tar stream or a staged layer.
//   - [github.com/kimg/kimg/store]: a containers/storage store, opened or wrapped.
//   - [github.com/kimg/kimg/commit]: a container becomes an image, in the store or anywhere an image can be copied to.
//
// A tool that holds a storage.Store of its own wraps it with store.Wrap and uses the rest on it.
package kimg
