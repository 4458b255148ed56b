// Package copydata keeps the state of one working container: which image it was made from, that image's own manifest
// and configuration bytes, and the configuration of the image it will become, as Docker and as OCI sees it.
//
// It reads and writes bytes through a [Directory], has no clock and no network, and builds on every system. Package store
// gives the directory of real containers, and package commit makes images of states.
//
// # Life of a state
//
// [New] makes the state of a new container, [CopyData.Save] writes it into the container's directory, [Load] reads it
// back in another process, [CopyData.Update] edits it, Save again. A [CopyData] belongs to one goroutine. Two processes
// may load the same state; the first to save wins and the other is refused (class busy) and must load again, because
// every save counts the generation up and names the one it was made from. A save that dies leaves the old file or the new
// one.
//
// [FromImage] makes a state of an image alone, to look at it or to edit what it says. [Renew] makes one that takes the
// place of a damaged file.
//
// # Settings
//
// What can be edited is one superset, [Settings]: the configuration with every member of both formats, the annotations of
// the manifest and of the new layer, and the texts for the history. Both configurations are derived from it, so they
// cannot disagree. What an edit brings in must be valid ([Settings.Check]); what an image came with need not be, and
// stays. Package edit makes edits of what people write.
//
// # Containers of other tools
//
// [FromBuildah] reads what buildah keeps beside its containers and gives what buildah commit would make an image of.
// [FromRuntime] reads how podman or CRI-O started a container and takes over what differs from its image; what only those
// engines know is named in a report. Reading writes nothing. Saving such a state is for those who mean to take the
// container over: from then on it counts, and the other tool's edits do not.
//
// # The file
//
// The state is one JSON object in a file named [FileName], at most [MaxSize] bytes:
//
//	type              always [Type]
//	schema            version of this list, 2; older files are read and upgraded by the next save, later ones refused
//	generation        counts saves, from 1
//	container-id      64 hexadecimal digits; must be the container the file lies in
//	container-name    may be empty
//	image             the image as the user named it; empty for scratch
//	image-id          64 hexadecimal digits; empty for scratch
//	format            of manifest and config: "oci", "v2s2", "v2s1"; empty for scratch
//	manifest          base64 of the image's manifest, as it came
//	config            base64 of the image's configuration, as it came; absent for v2s1, which has it in the manifest
//	diff-ids          of the image's layers, base first; for v2s1 only, which does not say them (since 2)
//	mountpoint        where the container was last mounted; a hint, never to be used unchecked
//	annotations       of the future image's manifest
//	layer-annotations of the layer that the commit adds (since 2)
//	created-by        for the history entry of the commit
//	history-comment   for the history entry of the commit (since 2)
//	docker            the future image's configuration, everything known and unknown
//	ociv1             the same as OCI sees it: derived from docker, for other readers
//	history           what happened to the file, as [Step]; at most [MaxHistory] of them, the first and the newest
//
// Members that are not in the list survive. docker is the truth: Load derives ociv1 again, and a file of the same
// schema where the two disagree is refused, because somebody edited one half.
//
// # Not trusted
//
// A state file is input, whoever wrote it, and so are other tools' files. Everything in them is checked; whatever is wrong
// is class state, one line, without repeating content. A container with a damaged state can still be listed and removed,
// and others are not touched by it.
//
// # Bytes
//
// The source image's bytes are never changed. As long as no setting differs from the image,
// [CopyData.Config] gives exactly them, also after any number of saves and of edits that were taken back. The format of an
// image is what its manifest says, never guessed from its configuration. Nothing is filled in that the image does not
// say: no platform, date or working directory.
package copydata
