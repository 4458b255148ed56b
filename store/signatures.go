package store

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
)

// Signatures of an image are where containers/image keeps them: those of one manifest in one document, one after the other, and how long
// each is in the metadata of the record.
const (
	signaturesKey = "signatures" // of the manifest that the record leads to
	maxSignatures = 16 << 20     // bytes of those of one manifest
)

func signatureKey(d digest.Digest) string { return "signature-" + d.Encoded() }

type signatureSizes struct {
	First []int                   `json:"signature-sizes"`
	Each  map[digest.Digest][]int `json:"signatures-sizes"`
}

// aboutKey is where a record keeps the index of manifests about its image.
const aboutKey = "kimg.about"

// About reads the index of manifests about the image, or about a list and its images, that came with it; nil: there are none. [Image.Blob]
// has the manifests and what they name. It is read from the store and must not be trusted more than what a registry says.
func (i *Image) About(ctx context.Context) ([]byte, error) {
	if !i.keeps(aboutKey) {
		return nil, nil
	}
	return i.bigData(ctx, aboutKey, maxManifest)
}

// Signatures reads the signatures of one of the manifests that are kept with the image, in the form of the files of a dir: directory.
// They are not verified. Class damaged when the store has not what its record says.
func (i *Image) Signatures(ctx context.Context, manifest digest.Digest) (all [][]byte, err error) {
	var kept signatureSizes
	if json.Unmarshal([]byte(i.rec.Metadata), &kept) != nil || manifest.Validate() != nil {
		return nil, nil // of somebody who keeps none there
	}
	key, sizes := signatureKey(manifest), kept.Each[manifest]
	if len(sizes) == 0 && manifest == i.rec.BigDataDigests[storage.ImageDigestBigDataKey] {
		key, sizes = signaturesKey, kept.First
	}
	if len(sizes) == 0 {
		return nil, nil
	}
	data, err := i.bigData(ctx, key, maxSignatures)
	if err != nil {
		return nil, err
	}
	for _, n := range sizes {
		if n < 0 || n > len(data) {
			return nil, kimg.Errorf(kimg.ErrDamaged, i.label(), "%s: shorter than its record says", key)
		}
		all, data = append(all, data[:n:n]), data[n:]
	}
	if len(data) > 0 {
		return nil, kimg.Errorf(kimg.ErrDamaged, i.label(), "%s: longer than its record says", key)
	}
	return all, nil
}

// Signatures is [Image.Signatures] for the index itself, its images and what is kept as data.
func (l List) Signatures(ctx context.Context, manifest digest.Digest) ([][]byte, error) {
	for _, e := range l.Entries {
		if e.Digest == manifest && e.Image != nil {
			return e.Image.Signatures(ctx, manifest)
		}
	}
	return l.img.Signatures(ctx, manifest)
}

// signed returns the documents that keep signatures, and the metadata that has their sizes besides what it had. first is the manifest that
// the record leads to.
func (r ImageRecord) signed(metadata string, first digest.Digest) (documents map[string][]byte, _ string, err error) {
	if len(r.Signatures) == 0 {
		return nil, metadata, nil
	}
	var kept signatureSizes
	var other map[string]json.RawMessage
	if json.Unmarshal([]byte(metadata), &other) != nil || json.Unmarshal([]byte(metadata), &kept) != nil || other == nil {
		other, kept = map[string]json.RawMessage{}, signatureSizes{}
	}
	kept.Each = maps.Clone(kept.Each)
	if kept.Each == nil {
		kept.Each = map[digest.Digest][]int{}
	}
	documents = map[string][]byte{}
	for d, all := range r.Signatures {
		var data []byte
		sizes := make([]int, len(all))
		for n, one := range all {
			data, sizes[n] = append(data, one...), len(one)
		}
		if err := strict.Size("signatures", int64(len(data)), maxSignatures); err != nil {
			return nil, "", err
		}
		documents[signatureKey(d)], kept.Each[d] = data, sizes
		if d == first {
			documents[signaturesKey], kept.First = data, sizes
		}
	}
	if other["signature-sizes"], err = strict.Marshal(kept.First); err != nil {
		return nil, "", err
	}
	if other["signatures-sizes"], err = strict.Marshal(kept.Each); err != nil {
		return nil, "", err
	}
	text, err := strict.Marshal(other)
	return documents, string(text), err
}
