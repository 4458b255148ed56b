package convert

import (
	"bytes"
	"encoding/base64"

	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// maxSignatures bounds the work that one document can ask for. Registries write one.
const maxSignatures = 16

// payloadOf returns what the signatures of a signed document are of: its first formatLength bytes and the tail that
// each signature carries. Only the payload may be read, because only it has the digest and the signature; so a document
// that says anything else than its payload is refused. The document must have been decoded strictly before.
func payloadOf(document []byte, signatures []docker.V1Signature) ([]byte, error) {
	if len(signatures) == 0 {
		return nil, badSignature("there is a list of signatures, but none in it")
	}
	if len(signatures) > maxSignatures {
		return nil, limit("too-big: %d signatures, the limit is %d", len(signatures), maxSignatures)
	}
	var format docker.V1Protected
	for i, s := range signatures {
		var p docker.V1Protected
		raw, ok := fromBase64URL(s.Protected)
		if !ok {
			return nil, badSignature("signatures[%d].protected is not base64url", i)
		}
		if err := strict.UnmarshalExact(raw, &p); err != nil {
			return nil, badSignature("signatures[%d].protected: %w", i, err)
		}
		if p.FormatLength <= 0 || p.FormatLength > int64(len(document)) {
			return nil, badSignature("formatLength is %d, in a document of %d bytes", p.FormatLength, len(document))
		}
		if i == 0 {
			format = p
		}
		if p.FormatLength != format.FormatLength || p.FormatTail != format.FormatTail {
			return nil, badSignature("the signatures are of different payloads")
		}
	}
	tail, ok := fromBase64URL(format.FormatTail)
	if !ok {
		return nil, badSignature("formatTail is not base64url")
	}
	payload := append(bytes.Clone(document[:format.FormatLength]), tail...)
	return payload, agree(document, payload)
}

// agree checks that a signed document says what its payload says, and nothing else but the signatures.
func agree(document, payload []byte) error {
	if err := strict.UnmarshalExact(payload, &struct{}{}); err != nil {
		return badSignature("the payload: %w", err)
	}
	outer, err := memberMap(document)
	if err != nil {
		return err
	}
	inner, err := memberMap(payload)
	if err != nil {
		return err
	}
	delete(outer, "signatures")
	for name, value := range outer {
		if !bytes.Equal(value, inner[name]) {
			return badSignature("the document does not say what was signed")
		}
	}
	if len(outer) != len(inner) {
		return badSignature("the document does not say all that was signed")
	}
	return nil
}

// fromBase64URL decodes base64url without padding, in its one canonical form.
func fromBase64URL(text string) ([]byte, bool) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	return data, err == nil && base64.RawURLEncoding.EncodeToString(data) == text
}

func badSignature(format string, args ...any) error { return invalid("signature: "+format, args...) }
