package store

import (
	"bytes"
	"maps"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
)

// ImageRecord is an image as it is put into the store.
type ImageRecord struct {
	Config       []byte
	Manifest     []byte
	ManifestType string // media type of Manifest; informative
	TopLayer     string // id of the topmost layer; "": none
	Names        []string
	Created      time.Time
	Signatures   map[digest.Digest][][]byte // of manifests, in the form of the files of a dir: directory; those that others have stay

	About []byte                   // an OCI index of manifests about the image, if there are any; it takes the place of another
	Data  map[digest.Digest][]byte // those manifests, and what they name; the image's own manifest by a digest that is not of sha256

	list *listData // the record is a manifest list: there is no configuration
}

// ID returns the image's ID: the hex digest of its configuration.
func (r ImageRecord) ID() string {
	if r.list != nil {
		return r.list.ID
	}
	return digest.FromBytes(r.Config).Encoded()
}

// documents are what the record keeps besides manifests, by their keys.
func (r ImageRecord) documents() map[string][]byte {
	documents := map[string][]byte{}
	if r.list != nil {
		maps.Copy(documents, r.list.Documents)
	} else {
		documents[digest.FromBytes(r.Config).String()] = r.Config
	}
	for d, data := range r.Data {
		key := d.String()
		if bytes.Equal(data, r.Manifest) {
			key = manifestKey(d)
		}
		documents[key] = data
	}
	if r.About != nil {
		documents[aboutKey] = r.About
	}
	return documents
}

// namedBy is the digest in the key of a manifest, by which the store finds it, unless that is of sha256; else empty.
func namedBy(key string) digest.Digest {
	d := digest.Digest(strings.TrimPrefix(key, manifestKey("")))
	if d.Validate() != nil || d.Algorithm() == digest.Canonical || manifestKey(d) != key {
		return ""
	}
	return d
}

// edited tells whether the record is a list that is changed in its place: it keeps nothing but its newest index.
func (r ImageRecord) edited() bool { return r.list != nil && r.list.Edited }

func (r ImageRecord) validate() error {
	switch {
	case r.list != nil:
		return nil // checked when it was made
	case len(r.Config) == 0 || len(r.Manifest) == 0:
		return kimg.Errorf(kimg.ErrInvalid, "image", "a record needs a manifest and a configuration")
	case len(r.Config) > maxConfig:
		return kimg.Errorf(kimg.ErrLimit, "image "+r.ID(), "the configuration has %d bytes, more than %d", len(r.Config), maxConfig)
	case len(r.Manifest) > maxManifest:
		return kimg.Errorf(kimg.ErrLimit, "image "+r.ID(), "the manifest has %d bytes, more than %d", len(r.Manifest), maxManifest)
	}
	_, err := listDocuments(convert.IndexView{}, r.Data)
	return err
}
