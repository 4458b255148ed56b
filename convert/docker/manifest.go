package docker

import "github.com/opencontainers/go-digest"

// Manifest is the manifest of schema 2: one image for one platform.
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"` // 2
	MediaType     string       `json:"mediaType"`     // MediaTypeManifest
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"` // base first
}

// Descriptor points at a blob.
type Descriptor struct {
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // bytes
	Digest    digest.Digest `json:"digest"`
	URLs      []string      `json:"urls,omitempty"` // where a foreign layer can be had
}

// ManifestList is the index of schema 2: one image for many platforms.
type ManifestList struct {
	SchemaVersion int              `json:"schemaVersion"` // 2
	MediaType     string           `json:"mediaType"`     // MediaTypeManifestList
	Manifests     []ListedManifest `json:"manifests"`
}

// ListedManifest points at the manifest for one platform.
type ListedManifest struct {
	Descriptor
	Platform Platform `json:"platform"`
}

// Platform is what an image of a [ManifestList] runs on.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
	Features     []string `json:"features,omitempty"` // of the CPU
}
