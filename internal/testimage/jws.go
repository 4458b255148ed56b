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
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
	if err != nil {
		panic("testimage: " + err.Error()) // one seed in 2^32 at worst, and then always
	}
	return key
}

// SignV1 signs a schema 1 manifest in the form that Docker's registries used (a JSON web signature wrapped around the
// document). The payload is one JSON object with at least one member, indented with three spaces as Docker wrote it. Equal
// input gives equal bytes; the time in the signature is fixed.
func SignV1(payload []byte, keys ...*ecdsa.PrivateKey) []byte {
	end := strings.LastIndexByte(string(payload), '}')
	length := len(strings.TrimRight(string(payload[:end]), " \t\r\n"))
	protected := encode64(mustJSON(map[string]any{
		"formatLength": length, "formatTail": encode64(payload[length:]), "time": "2016-03-01T12:00:00Z",
	}))
	signed := sha256.Sum256([]byte(protected + "." + encode64(payload)))
	var list []signature
	for _, key := range keys {
		s := signature{Signature: encode64(signES256(key, signed[:])), Protected: protected}
		s.Header.JWK, s.Header.Alg = publicKey(key), "ES256"
		list = append(list, s)
	}
	text, err := json.MarshalIndent(list, "   ", "   ")
	if err != nil {
		panic("testimage: " + err.Error())
	}
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
	der, err := key.Sign(nil, hash, crypto.SHA256)
	if err != nil {
		panic("testimage: " + err.Error())
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		panic("testimage: " + err.Error())
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out
}

func publicKey(key *ecdsa.PrivateKey) map[string]string {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		panic("testimage: " + err.Error())
	}
	return map[string]string{
		"kty": "EC", "crv": "P-256", "kid": KeyID(key), "x": encode64(point[1:33]), "y": encode64(point[33:]),
	}
}

// KeyID is the fingerprint by which Docker names a key: twelve groups of four letters and digits.
func KeyID(key *ecdsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		panic("testimage: " + err.Error())
	}
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	var groups []string
	for g := range slices.Chunk([]byte(text), 4) {
		groups = append(groups, string(g))
	}
	return strings.Join(groups, ":")
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
