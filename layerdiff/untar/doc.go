// Package untar unpacks the tar of a layer that somebody else wrote, into a directory in the form in which overlay keeps layers.
// The tar is read once: the same pass hashes it, writes its tar-split record and makes the files.
//
// # Where files go
//
// Every file is made relative to an open directory, never by a path of the system. A member is found as a process finds it
// whose root is the directory: "..", absolute names and links of the tar itself stay inside, as in every engine that unpacks in a
// chroot. Links are not followed in the last name: what has a member's name already is replaced, except a directory by a
// directory. When a name comes twice the later member counts; the content of the earlier one is kept in the record, so that the tar
// can still be given back byte for byte.
// So it is with the content of sparse members, of every form that GNU tar writes: the holes stay holes, and count in full where
// bytes are counted.
//
// # What is refused
//
// Names that begin with ".." when they are cleaned, deletions of "." and "..", overlay's own attributes (class unsafe);
// what is no tar, and links to nothing (class invalid); more than the limits of the failure model (class limit); sparse members of
// other forms, and what could not be given back (class unsupported); a stream that is cut short (class integrity).
package untar
