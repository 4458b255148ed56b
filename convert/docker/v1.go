package docker

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// V1Manifest is the manifest of schema 1. FSLayers[i] belongs to History[i]; index 0 is the newest, the last is the base.
type V1Manifest struct {
	SchemaVersion int           `json:"schemaVersion"` // 1
	Name          string        `json:"name"`          // repository path without host, may be empty
	Tag           string        `json:"tag"`           // may be empty
	Architecture  string        `json:"architecture"`
	FSLayers      []V1FSLayer   `json:"fsLayers"`
	History       []V1History   `json:"history"`
	Signatures    []V1Signature `json:"signatures,omitempty"` // present (even empty) in a signed manifest
}

// V1FSLayer names the blob of one history entry, empty ones included.
type V1FSLayer struct {
	BlobSum digest.Digest `json:"blobSum"`
}

// V1History is one step of a [V1Manifest].
type V1History struct {
	V1Compatibility string `json:"v1Compatibility"` // the JSON text of a V1Image
}

// V1Signature is one JSON web signature of a signed [V1Manifest].
type V1Signature struct {
	Header    V1SignatureHeader `json:"header"`
	Signature string            `json:"signature"` // base64url without padding
	Protected string            `json:"protected"` // base64url of a V1Protected
}

// V1SignatureHeader says how and with which key a signature was made.
type V1SignatureHeader struct {
	JWK       *V1Key   `json:"jwk,omitempty"`
	X5C       []string `json:"x5c,omitempty"` // base64 certificates, the signer's first
	Algorithm string   `json:"alg"`
}

// V1Key is the public key of a signature.
type V1Key struct {
	KeyType string `json:"kty"`
	KeyID   string `json:"kid,omitempty"`
	Curve   string `json:"crv,omitempty"` // elliptic curve keys: the curve and the point
	X       string `json:"x,omitempty"`
	Y       string `json:"y,omitempty"`
	N       string `json:"n,omitempty"` // RSA keys: modulus and exponent
	E       string `json:"e,omitempty"`
}

// V1Protected says what a signature covers: the first FormatLength bytes of the document and the tail.
type V1Protected struct {
	FormatLength int64  `json:"formatLength"`
	FormatTail   string `json:"formatTail"` // base64url
	Time         string `json:"time,omitempty"`
}

// V1Image is the configuration inside a history entry of schema 1: complete in the newest entry, a few members in the
// older ones.
type V1Image struct {
	ID              string     `json:"id,omitempty"`     // 64 hexadecimal digits
	Parent          string     `json:"parent,omitempty"` // id of the next older entry
	ParentID        string     `json:"parent_id,omitempty"`
	LayerID         string     `json:"layer_id,omitempty"`
	Comment         string     `json:"comment,omitempty"`
	Created         *time.Time `json:"created,omitempty"`
	Container       string     `json:"container,omitempty"`
	ContainerConfig *Config    `json:"container_config,omitempty"`
	DockerVersion   string     `json:"docker_version,omitempty"`
	Author          string     `json:"author,omitempty"`
	Config          *Config    `json:"config,omitempty"`
	Architecture    string     `json:"architecture,omitempty"`
	Variant         string     `json:"variant,omitempty"`
	OS              string     `json:"os,omitempty"`
	OSVersion       string     `json:"os.version,omitempty"`
	OSFeatures      []string   `json:"os.features,omitempty"`
	Throwaway       bool       `json:"throwaway,omitempty"` // the entry has no layer
	Size            *int64     `json:"Size,omitempty"`      // bytes; 0 marks empty layers before Docker 1.10
}
