// Package docker holds the JSON types of the Docker image formats, and nothing else: the image configuration of
// schema 2 ([Image]), the manifests and lists of schema 2 ([Manifest], [ManifestList]) and the signed manifests of
// schema 1 with the configuration inside their history ([V1Manifest], [V1Image]).
//
// The types are complete: every member that a Docker release has written is here, those of releases before 1.8
// included, so that whoever edits an image can reach all of it. Members nobody knows are kept as raw JSON by package
// convert, not here.
//
// All members are written only when they say something: Docker itself also writes empty ones ("Hostname":""), which
// mean the same. Lists and maps that are null, empty or absent in a document are nil or empty here; only [Config.StopTimeout]
// and [V1Image.Size] tell zero from absent, and times are pointers, because year 1 is not the same as unknown.
package docker

// Media types of schema 2 and schema 1.
const (
	MediaTypeManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeConfig       = "application/vnd.docker.container.image.v1+json"

	MediaTypeLayer            = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeLayerGzip        = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	MediaTypeLayerZstd        = "application/vnd.docker.image.rootfs.diff.tar.zstd" // read, never written: many tools refuse it
	MediaTypeForeignLayer     = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	MediaTypeForeignLayerGzip = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

	MediaTypeV1Manifest       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeV1SignedManifest = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)
