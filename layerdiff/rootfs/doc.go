// Package rootfs computes the digest of what an image's layers show when they are put on top of each other: the tree a
// container sees. The digest of the layers as tar streams ([Layers]) and of the same layers unpacked and mounted ([Tree])
// are equal, and so are those of any two ways to cut one tree into layers. It is how a conversion proves that it changed
// nothing.
//
// # The digest
//
// The sha256 of one record for each name of the tree, the root itself not included; depth first, the names of a directory
// in the order of their bytes. A record is three fields: the path ("usr/bin/env"), the sha256 of the file (32 bytes), and,
// for a second name of a file that came before, the path it came under first, else nothing. That sha256 is taken over
// seven fields and two for each extended attribute:
//
//	type      f, d, l (symbolic link), c, b (devices), p (FIFO)
//	mode      permissions, setuid, setgid and sticky, four octal digits; always 0777 for a symbolic link
//	owner     user id, decimal, as the container sees it
//	group     likewise
//	time      of modification, whole seconds since 1970, rounded down, decimal; "-" for an implied directory
//	content   f: the sha256 of the content (32 bytes); l: the target; c, b: "major,minor"; else nothing
//	xattrs    how many extended attributes there are, decimal
//	name, value of each, in the order of the names
//
// A field is its length in decimal, a colon, its bytes and a comma. Left out are sockets, which no layer holds, and
// attributes that say something about the host only (SELinux labels, EVM signatures) or belong to overlayfs.
//
// # What layers show
//
// The rules are those of the OCI image specification as overlayfs carries them out:
//
//   - A member replaces what has its name, in lower layers and earlier in its own; only a directory over a directory keeps
//     the content, and takes type, mode, owner, time and attributes from the member.
//   - A directory a layer needs and has no member for is implied: it keeps what lower layers say about it, or is new with
//     mode 0755 and owner 0:0 (below a directory with setgid, tools may unpack it with setgid). Its time is not counted, because every tool sets another; it counts again when a layer above
//     has a member for it.
//   - A whiteout (.wh.NAME) takes the name out of the lower layers, an opaque marker (.wh..wh..opq) all names of its
//     directory. Neither touches what its own layer holds, wherever in the stream that comes. Other names that begin with
//     .wh..wh. are bookkeeping of aufs and ignored, with everything below them.
//   - A hard link to a file of its own layer is a second name of that file. One to a file that only a lower layer has first
//     copies the file up, as overlayfs does: the target and the link become one file, apart from the target's other names
//     in lower layers. What the member says about mode, owner and time is the target's business and ignored. When one
//     name of a file is replaced, the others stay one file.
//   - Nothing is followed: a member below a name that its own layer makes a symbolic link, or a file, is refused.
package rootfs
