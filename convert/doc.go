// Package convert turns the bytes of one image format into the bytes of another: Docker schema 1 ("v2s1"), Docker schema
// 2 ("v2s2") and OCI, in every direction ([Convert]), and their indexes ([ConvertIndex]). It is pure: no files, no network,
// no clock; the same input gives the same output on every system.
//
// Nothing is lost in silence: what differs between source and result is in a [Report]. docs/conversion.md says what that
// can be.
//
// # Docker is the value, OCI is its projection
//
// Every member of an OCI image configuration is also a member of a Docker one, under the same name; Docker has more.
// So a [Config] is one JSON document, read as the superset [docker.Image] and edited as that. [Config.OCI] is what an
// OCI reader sees in the document, never a second copy kept equal by hand.
//
// # Bytes are kept
//
// A document nobody edited is given back as the bytes it came as, in its own format always, and in the other format
// when it is a valid document there already (it has architecture and os, its commands are lists, diff_ids is a list).
// Then the digest, which is the image ID, is the same in both formats. Otherwise [Config.JSON] writes new bytes and
// its [Report] names every change by JSON path.
//
// An edit rewrites the members it changes and nothing else. Keys nobody knows, at any level, numbers too big for an
// integer, dates with their zone and fraction, escapes inside strings: what was not edited keeps its text. Edits are
// always relative to the source, so an edit that is taken back gives the source's bytes again.
//
// Manifests have no such rule across formats: what a format has no place for is reported. [Manifest] always writes a new
// one; [Convert] within a format rewrites the source, as edits do, and keeps what nobody knows. So does [ConvertIndex].
//
// # Schema 1
//
// A schema 1 image has no configuration of its own: it is inside the newest entry of the manifest's history.
// [ParseSchema1] says which blobs are layers; with their diff IDs, [Parse] and [Convert] make the configuration that
// Docker makes, byte for byte. What tells the chain of entries (ids, parents, sizes) says nothing about the image: it is
// made anew and not reported.
//
// A signed manifest is a JSON web signature around its payload, and only the payload is read: it has the digest
// ([ManifestDigest]), and a document that says anything beside it is refused. [VerifyJWS] checks the signatures. What is
// written is unsigned: no signature outlives a change.
//
// # Strict
//
// [Detect], [Parse], [ParseManifest], [ParseSchema1] and [ParseIndex] refuse what two readers could understand
// differently: a member twice or in another case, members of two manifest kinds in one document, a media type that
// contradicts the content, more or fewer layers than diff IDs or history entries, sizes that are absent or below zero,
// digests of another form; in schema 1 also entries that do not lie on each other, and malformed signatures. The
// error's class is invalid (integrity for wrong sizes and digests, limit for documents over 4 MiB, 500 layers, 1000
// history entries or 10,000 of an index, notfound for an image that an index names and nobody has, unsupported for
// well-formed things kimg does not do), and its text begins with one reason word: json, json-type, duplicate-key,
// ambiguous, media-type, not-an-image, schema-version, count, digest, size, rootfs-type, timestamp, diff-id,
// blob-digest, blob-missing, v1-id, parent-chain, duplicate-id, signature, too-big, depth.
//
// A configuration may spell a known member in another case ("cmd" for "Cmd"), because every engine reads it; it may
// not have both. A manifest may not, nor may the members of a schema 1 entry that make the chain.
package convert
