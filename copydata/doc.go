// Package copydata keeps the state of one working container: which image it was made from, that image's own manifest
// and configuration bytes, and the configuration of the image it will become, as Docker and as OCI sees it.
//
// # Life of a state
//
// [New] makes the state of a new container, [CopyData.Save] writes it into the container's directory, [Load] reads it
// back in another process, [CopyData.Update] edits it, Save again. A [CopyData] belongs to one goroutine. Two processes
// may load the same state; the first to save wins and the other is refused (class busy) and must load again, because
// every save counts the generation up and names the one it was made from.
//
// # The file
//
// The state is one JSON object in a file named [FileName], at most [MaxSize] bytes:
//
//	type            always [Type]
//	schema          version of this list; a file of a later version than ours is refused
//	generation      counts saves, from 1
//	container-id    64 hexadecimal digits; must be the container the file lies in
//	container-name  may be empty
//	image           the image as the user named it; empty for scratch
//	image-id        64 hexadecimal digits; empty for scratch
//	format          of manifest and config: "oci", "v2s2"; empty for scratch
//	manifest        base64 of the image's manifest, as it came
//	config          base64 of the image's configuration, as it came
//	mountpoint      where the container was last mounted; a hint, never to be used unchecked
//	annotations     of the future image's manifest
//	created-by      for the history entry of the commit
//	docker          the future image's configuration, everything known and unknown
//	ociv1           the same as OCI sees it: derived from docker, for other readers
//	history         which versions of this list have written the file: generation, schema, what
//
// Members that are not in the list survive. docker is the truth: Load derives ociv1 again, and a file of the same
// schema where the two disagree is refused, because somebody edited one half.
//
// # Not trusted
//
// A state file is input, whoever wrote it. Everything in it is checked; whatever is wrong is class state, one line,
// without repeating content. A container with a damaged state can still be listed and removed.
//
// # Bytes
//
// The source image's bytes are never changed. As long as no setting differs from the image,
// [CopyData.Config] gives exactly them, also after any number of saves.
package copydata
