// Package image converts whole images, with their blobs, between any two of dir:, oci:, oci-archive:, docker-archive: and
// a containers/storage store, and from a registry. Package convert does the documents; this one moves the bytes.
//
// # One pass
//
// Every blob is read once: checked against its digest and the size its manifest declares, decompressed by its first bytes
// whatever its label says, measured (diff ID, size, whether the tar is empty) and staged at the destination, all from the
// same bytes. What was learnt is kept for the life of a [Converter], so that further images on the same base cost
// nothing for it. Blobs stay as they are but for: bzip2 and xz become gzip everywhere, zstd becomes gzip for the Docker
// formats, docker-archive: holds plain layers, layers of a store become gzip. Foreign layers are never fetched: their descriptors
// are kept. Blobs of schema 1 entries without a layer are neither read nor written.
//
// # All or nothing
//
// A destination changes when everything is there and checked: digests, sizes, diff IDs against the configuration, the
// policy, and with Options.FailOnLoss the report. Until then it is what it was, and after a failure too.
//
// # Policy and store
//
// Every image that comes from elsewhere passes the signature policy. A store is opened only when a reference names one.
package image
