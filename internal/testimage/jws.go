package testimage

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
)

// Key returns the P-256 key of a seed.
func Key(seed uint64) *ecdsa.PrivateKey {
	d := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("a key of testimage"), seed))
	for {
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:]); err == nil {
			return key
		}
		d = sha256.Sum256(d[:]) // one hash in 2^32 is no key
	}
}

// SignV1 signs a schema 1 manifest in the form that Docker's registries used (a JSON web signature wrapped around the
// document). The payload is one JSON object with at least one member, indented with three spaces as Docker wrote it. Equal
// input gives equal bytes; the time in the signature is fixed.
func SignV1(payload []byte, keys ...*ecdsa.PrivateKey) []byte {
	end := strings.LastIndexByte(string(payload), '}')
	length := len(strings.TrimRight(string(payload[:end]), " \t\r\n"))
	protected := encode64(toJSON(map[string]any{
		"formatLength": length, "formatTail": encode64(payload[length:]), "time": "2016-03-01T12:00:00Z",
	}))
	signed := sha256.Sum256([]byte(protected + "." + encode64(payload)))
	var list []signature
	for _, key := range keys {
		s := signature{Signature: encode64(signES256(key, signed[:])), Protected: protected}
		s.Header.JWK, s.Header.Alg = publicKey(key), "ES256"
		list = append(list, s)
	}
	text, _ := json.MarshalIndent(list, "   ", "   ") // strings only
	return slices.Concat(payload[:length], []byte(",\n   \"signatures\": "), text, []byte("\n}"))
}

type signature struct {
	Header struct {
		JWK map[string]string `json:"jwk"`
		Alg string            `json:"alg"`
	} `json:"header"`
	Signature string `json:"signature"`
	Protected string `json:"protected"`
}

// signES256 returns r and s, 32 bytes each. Without a source of random numbers the signature follows RFC 6979.
func signES256(key *ecdsa.PrivateKey, hash []byte) []byte {
	sig := struct{ R, S *big.Int }{new(big.Int), new(big.Int)}
	if der, err := key.Sign(nil, hash, crypto.SHA256); err == nil {
		_, _ = asn1.Unmarshal(der, &sig) // a signature of zeros verifies nowhere
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out
}

func publicKey(key *ecdsa.PrivateKey) map[string]string {
	point, _ := key.PublicKey.Bytes() // fails for keys of unknown curves only
	x, y := point[1:len(point)/2+1], point[len(point)/2+1:]
	return map[string]string{"kty": "EC", "crv": "P-256", "kid": KeyID(key), "x": encode64(x), "y": encode64(y)}
}

// KeyID is the fingerprint by which Docker names a key: twelve groups of four letters and digits.
func KeyID(key *ecdsa.PrivateKey) string {
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey) // fails for keys of unknown curves only
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	var groups []string
	for g := range slices.Chunk([]byte(text), 4) {
		groups = append(groups, string(g))
	}
	return strings.Join(groups, ":")
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
