package store

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/containers/image/v5/manifest"
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
func (i *Image) Signatures(ctx context.Context, of digest.Digest) (all [][]byte, err error) {
	var kept signatureSizes
	if json.Unmarshal([]byte(i.rec.Metadata), &kept) != nil || of.Validate() != nil {
		return nil, nil // of somebody who keeps none there
	}
	key, sizes := signatureKey(of), kept.Each[of]
	if len(sizes) == 0 && of == i.rec.BigDataDigests[storage.ImageDigestBigDataKey] {
		key, sizes = signaturesKey, kept.First
	}
	if len(sizes) == 0 {
		return nil, nil
	}
	data, err := i.bigData(ctx, key, maxSignatures)
	if err != nil {
		return nil, err
	}
	all, ok := split(data, sizes)
	if !ok {
		return nil, kimg.Errorf(kimg.ErrDamaged, i.label(), "%s: not as long as its record says", key)
	}
	return all, nil
}

// split takes a document with signatures apart.
func split(data []byte, sizes []int) (all [][]byte, ok bool) {
	for _, n := range sizes {
		if n < 0 || n > len(data) {
			return nil, false
		}
		all, data = append(all, data[:n:n]), data[n:]
	}
	return all, len(data) == 0
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

// signedBefore is what a record said about signatures, and those of its documents with signatures that a put replaces or needs.
type signedBefore struct {
	Was       digest.Digest     `json:"was"` // the manifest that it led to
	Metadata  string            `json:"metadata"`
	Documents map[string][]byte `json:"documents,omitempty"`
}

// signedBefore looks at a record that may lead to another manifest when it is put, or gets signatures; else it is nil.
func (p *imagePut) signedBefore(old *storage.Image) (*signedBefore, error) {
	now, err := p.digest()
	b := &signedBefore{Was: old.BigDataDigests[storage.ImageDigestBigDataKey], Metadata: old.Metadata, Documents: map[string][]byte{}}
	if err != nil || len(p.rec.Signatures) == 0 && b.Was == now {
		return nil, err
	}
	keys := []string{signaturesKey, signatureKey(now)}
	for d := range p.rec.Signatures {
		keys = append(keys, signatureKey(d))
	}
	for _, key := range keys {
		if slices.Contains(old.BigDataNames, key) && old.BigDataSizes[key] <= maxSignatures {
			if data, err := p.s.st.ImageBigData(old.ID, key); err == nil { // missing: nothing to keep
				b.Documents[key] = data
			}
		}
	}
	return b, nil
}

// sign gives the record, which leads to manifest now by then, its signatures.
func (p *imagePut) sign(old *storage.Image, now digest.Digest, set func(key string, data []byte) error) (err error) {
	b := p.before.Signed
	if b == nil { // the record may have come since
		if b, err = p.signedBefore(old); b == nil {
			return err
		}
	}
	signatures, metadata, err := p.rec.signed(*b, now)
	for key, data := range signatures {
		if err == nil && old.BigDataDigests[key] != digest.FromBytes(data) {
			err = set(key, data)
		}
	}
	if err == nil && metadata != old.Metadata {
		err = p.s.st.SetMetadata(old.ID, metadata)
	}
	return err
}

// signed returns the documents that keep signatures, and the metadata that has their sizes besides what it had. The record leads to
// manifest now by then. Every manifest keeps those that it had, unless it gets others.
func (r ImageRecord) signed(before signedBefore, now digest.Digest) (documents map[string][]byte, _ string, err error) {
	var kept signatureSizes
	var other map[string]json.RawMessage
	if json.Unmarshal([]byte(before.Metadata), &other) != nil || json.Unmarshal([]byte(before.Metadata), &kept) != nil || other == nil {
		other, kept = map[string]json.RawMessage{}, signatureSizes{}
	}
	signed := map[digest.Digest][][]byte{}
	if before.Was != now && len(kept.First)+len(kept.Each) > 0 {
		if before.Was != "" && len(kept.Each[before.Was]) == 0 {
			signed[before.Was], _ = split(before.Documents[signaturesKey], kept.First)
		}
		signed[now], _ = split(before.Documents[signatureKey(now)], kept.Each[now])
	}
	maps.Copy(signed, r.Signatures)
	if len(signed) == 0 {
		return nil, before.Metadata, nil
	}
	each := map[digest.Digest][]int{}
	maps.Copy(each, kept.Each)
	documents = map[string][]byte{}
	for d, all := range signed {
		data, sizes := bytes.Join(all, nil), make([]int, len(all))
		for n, one := range all {
			sizes[n] = len(one)
		}
		if err := strict.Size("signatures", int64(len(data)), maxSignatures); err != nil {
			return nil, "", err
		}
		each[d] = sizes
		if d == now {
			kept.First = sizes
		}
		if len(all) == 0 {
			delete(each, d)
			continue
		}
		documents[signatureKey(d)] = data
		if d == now {
			documents[signaturesKey] = data
		}
	}
	if other["signature-sizes"], err = strict.Marshal(kept.First); err != nil {
		return nil, "", err
	}
	if other["signatures-sizes"], err = strict.Marshal(each); err != nil {
		return nil, "", err
	}
	text, err := strict.Marshal(other)
	return documents, string(text), err
}

// restoreSigned gives a record the signatures it had.
func (p *imagePut) restoreSigned(img *storage.Image) error {
	b := p.before.Signed
	if b == nil {
		return nil
	}
	for key, data := range b.Documents {
		if img.BigDataDigests[key] != digest.FromBytes(data) {
			if err := p.s.st.SetImageBigData(img.ID, key, data, manifest.Digest); err != nil {
				return err
			}
		}
	}
	if img.Metadata == b.Metadata {
		return nil
	}
	return p.s.st.SetMetadata(img.ID, b.Metadata)
}
