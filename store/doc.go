// Package store works on a containers/storage store: it resolves images, makes working containers, mounts them, adds
// layers and image records, and keeps everything readable for podman, buildah and skopeo.
//
// # Life cycle
//
// [Open] honours storage.conf and the environment as every tool of the family does, and takes back what a killed kimg
// left behind. [Wrap] takes a storage.Store someone else opened as it is: no lock files, no recovery, no shutdown.
//
// # Changes
//
// Every mutation goes through [Store.Change]: everything heavy is staged first, where nobody sees it; the file systems
// are synced; only then is it recorded, in renames and JSON saves of a few milliseconds; they are synced again. A
// failure before or while recording takes everything back, last step first. No lock is held while data streams, but by
// the library of a vfs store, which makes a layer by copying the tree below.
//
// # reexec
//
// Everything that adds layers or makes containers in a vfs store unpacks in a re-executed child of this program, in a chroot. A
// program that does so calls reexec.Init of github.com/containers/storage/pkg/reexec as the first statement of main and returns if it
// says true; without it such changes fail with class internal. Nothing else in this package needs it.
package store
