package convert

import (
	"fmt"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// maxV1Entries is how many entries a schema 1 manifest may have: each may be a layer.
const maxV1Entries = MaxLayers

// Schema1 is what a schema 1 manifest says, read from its payload only: what stands elsewhere in a signed manifest was
// not signed and has not the digest.
//
// Entries that follow each other with the same id are one, as for Docker: the older one, with its blob and, at the top,
// its configuration.
type Schema1 struct {
	Name, Tag, Architecture string          // all may be empty
	Digest                  digest.Digest   // of the payload of a signed manifest, of the bytes of another
	Signed                  bool            // it has signatures; VerifyJWS checks them
	Layers                  []digest.Digest // blobs of the entries that have a layer, base first, repeats kept
	Empty                   []digest.Digest // blobs of the throwaway entries, base first: nobody needs to read them
}

// ParseSchema1 reads a schema 1 manifest, signed or not, and checks it as the package documentation says. Any other
// kind of manifest is class unsupported.
func ParseSchema1(manifest []byte) (Schema1, error) {
	s, err := parseSchema1(manifest)
	return s.Schema1, kimg.Wrap("manifest", err)
}

// ManifestDigest returns the digest by which a manifest of any format, or an index, is known: sha256 of its bytes, but
// of a signed schema 1 manifest that of its payload, so that signing it again does not change its name. Errors are
// those of [Detect], and of malformed signatures.
func ManifestDigest(manifest []byte) (digest.Digest, error) {
	k, err := membersOf(manifest)
	if err == nil && string(k.SchemaVersion) == "1" {
		var doc signedDocument
		doc, err = openSchema1(manifest)
		manifest = doc.payload
	}
	if err != nil {
		return "", kimg.Wrap("manifest", err)
	}
	return digest.FromBytes(manifest), nil
}

// EmptyLayer returns the layer that Docker put where schema 1 needs one and the image has none: 32 bytes, a gzip
// stream of a tar without entries.
func EmptyLayer() (blob []byte, l Layer) {
	blob = []byte("\x1f\x8b\b\x00\x00\tn\x88\x00\xffb\x18\x05\xa3`\x14\x8cX\x00\b\x00\x00\xff\xff.\xaf\xb5\xef\x00\x04\x00\x00")
	return blob, Layer{
		DiffID: "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
		Digest: "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
		Size:   int64(len(blob)), MediaType: docker.MediaTypeLayerGzip,
	}
}

// signedDocument is a schema 1 manifest and what of it counts.
type signedDocument struct {
	payload    []byte // all of an unsigned one
	signed     bool
	signatures []docker.V1Signature
}

// openSchema1 checks a manifest of schema 1 as a document and separates its payload from its signatures.
func openSchema1(manifest []byte) (signedDocument, error) {
	if f, err := detect(manifest, ""); err != nil {
		return signedDocument{}, err
	} else if f != DockerV2S1 {
		return signedDocument{}, kimg.Errorf(kimg.ErrUnsupported, "", "schema-version: a manifest of format %s, not of schema 1", f)
	}
	var m docker.V1Manifest
	if err := strict.UnmarshalExact(manifest, &m); err != nil {
		return signedDocument{}, err
	}
	members, err := memberMap(manifest)
	if err != nil {
		return signedDocument{}, err
	}
	doc := signedDocument{payload: manifest, signatures: m.Signatures}
	if _, doc.signed = members["signatures"]; doc.signed {
		doc.payload, err = payloadOf(manifest, m.Signatures)
	}
	return doc, err
}

// schema1 is a schema 1 manifest with all that conversion needs.
type schema1 struct {
	Schema1
	payload []byte
	entries []v1Entry       // base first, without repeated ones
	repeats []digest.Digest // blobs of the entries left out as repeated
}

// v1Entry is one entry of a schema 1 history.
type v1Entry struct {
	blob  digest.Digest
	raw   []byte         // its v1Compatibility text
	image docker.V1Image // what that says
	index int            // in the manifest, newest first
}

func parseSchema1(manifest []byte) (schema1, error) {
	doc, err := openSchema1(manifest)
	if err != nil {
		return schema1{}, err
	}
	var m docker.V1Manifest
	if err := strict.UnmarshalExact(doc.payload, &m); err != nil {
		return schema1{}, err
	}
	if n := len(m.FSLayers); n == 0 || n != len(m.History) {
		return schema1{}, invalid("count: %d fsLayers and %d history entries", n, len(m.History))
	} else if n > maxV1Entries {
		return schema1{}, limit("too-big: %d history entries, the limit is %d", n, maxV1Entries)
	}
	s := schema1{payload: doc.payload, Schema1: Schema1{
		Name: m.Name, Tag: m.Tag, Architecture: m.Architecture, Digest: digest.FromBytes(doc.payload), Signed: doc.signed,
	}}
	for i := len(m.History) - 1; i >= 0; i-- {
		e, err := parseV1Entry(m.History[i].V1Compatibility, m.FSLayers[i].BlobSum)
		if err != nil {
			return schema1{}, kimg.Wrap(fmt.Sprintf("history[%d]", i), err)
		}
		e.index = i
		s.entries = append(s.entries, e)
	}
	if err := s.chain(); err != nil {
		return schema1{}, err
	}
	for _, e := range s.entries {
		if e.image.Throwaway {
			s.Empty = append(s.Empty, e.blob)
		} else {
			s.Layers = append(s.Layers, e.blob)
		}
	}
	return s, nil
}

// v1Only holds the members that only schema 1 has. They decide what is a layer and on what it lies, so unlike the rest
// of a configuration they must be spelled exactly.
type v1Only struct {
	ID        string `json:"id"`
	Parent    string `json:"parent"`
	ParentID  string `json:"parent_id"`
	LayerID   string `json:"layer_id"`
	Throwaway bool   `json:"throwaway"`
	Size      *int64 `json:"Size"`
}

func parseV1Entry(text string, blob digest.Digest) (v1Entry, error) {
	e := v1Entry{blob: blob, raw: []byte(text)}
	if err := strict.UnmarshalExact(e.raw, &v1Only{}); err != nil {
		return e, kimg.Wrap("v1Compatibility", err)
	}
	if err := strict.Unmarshal(e.raw, &e.image); err != nil {
		return e, kimg.Wrap("v1Compatibility", err)
	}
	if err := strict.ID(e.image.ID); err != nil {
		return e, invalid("v1-%w", err)
	}
	return e, strict.Digest(string(blob))
}

// chain checks that each entry lies on the next older one, and leaves out the newer of two that have the same id.
func (s *schema1) chain() error {
	seen := map[string]bool{}
	kept := s.entries[:0]
	below := ""
	for _, e := range s.entries {
		switch id := e.image.ID; {
		case id == below:
			s.repeats = append(s.repeats, e.blob)
			continue
		case seen[id]:
			return invalid("duplicate-id: history[%d] has an id that an older entry has", e.index)
		case e.image.Parent != below && below == "":
			return invalid("parent-chain: the base entry has a parent")
		case e.image.Parent != below:
			return invalid("parent-chain: the parent of history[%d] is not the next older entry", e.index)
		}
		below = e.image.ID
		seen[below] = true
		kept = append(kept, e)
	}
	s.entries = kept
	return nil
}
