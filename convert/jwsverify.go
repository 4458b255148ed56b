package convert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
)

// maxRSABits is the longest RSA key that is used: the work grows with its cube.
const maxRSABits = 8192

// VerifyJWS checks every signature of a signed schema 1 manifest against the key that lies beside it, and returns the
// ids of the keys. That proves the manifest whole and says nothing about who signed it: whoever changes a manifest can
// sign it again with a key of their own, so compare the ids with ones you trust. A chain of certificates is not
// followed; the first one holds the key.
//
// A signature that is not that of the key is class integrity, an unsigned manifest and malformed signatures are class
// invalid, unknown algorithms class unsupported, all with the reason "signature".
func VerifyJWS(manifest []byte) (keyIDs []string, err error) {
	doc, err := openSchema1(manifest)
	if err == nil && !doc.signed {
		err = badSignature("the manifest is not signed")
	}
	if err != nil {
		return nil, kimg.Wrap("manifest", err)
	}
	payload := base64.RawURLEncoding.EncodeToString(doc.payload)
	for i, s := range doc.signatures {
		id, err := verify(s, payload)
		if err != nil {
			return nil, kimg.Wrap(fmt.Sprintf("manifest: signatures[%d]", i), err)
		}
		keyIDs = append(keyIDs, id)
	}
	return keyIDs, nil
}

// verify checks one signature of a payload, given as base64url, and returns the id of its key.
func verify(s docker.V1Signature, payload string) (string, error) {
	hash, curve := algorithm(s.Header.Algorithm)
	if hash == 0 {
		return "", kimg.Errorf(kimg.ErrUnsupported, "", "signature: algorithm %s", kimg.Quote(s.Header.Algorithm))
	}
	key, err := publicKey(s.Header)
	if err != nil {
		return "", err
	}
	signature, ok := fromBase64URL(s.Signature)
	if !ok {
		return "", badSignature("it is not base64url")
	}
	h := hash.New()
	_, _ = io.WriteString(h, s.Protected+"."+payload) // a hash never fails
	good := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != curve {
			return "", badSignature("the key is not one of the algorithm")
		}
		n := len(signature) / 2
		good = len(signature) == 2*octets(curve) &&
			ecdsa.Verify(key, h.Sum(nil), new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
	case *rsa.PublicKey:
		if curve != nil {
			return "", badSignature("the key is not one of the algorithm")
		}
		if key.N.BitLen() > maxRSABits {
			return "", limit("too-big: an RSA key of %d bits, the limit is %d", key.N.BitLen(), maxRSABits)
		}
		good = rsa.VerifyPKCS1v15(key, hash, h.Sum(nil), signature) == nil
	default:
		return "", kimg.Errorf(kimg.ErrUnsupported, "", "signature: neither an elliptic curve nor an RSA key")
	}
	if !good {
		return "", kimg.Errorf(kimg.ErrIntegrity, "", "signature: it is not that of its key over this manifest")
	}
	id, err := keyID(key)
	if jwk := s.Header.JWK; err == nil && jwk != nil && jwk.KeyID != "" && jwk.KeyID != id {
		err = kimg.Errorf(kimg.ErrIntegrity, "", "signature: the key has another id than it says")
	}
	return id, err
}

// algorithm returns the hash of a signature algorithm, 0 for an unknown one, and the curve, nil for RSA.
func algorithm(name string) (crypto.Hash, elliptic.Curve) {
	switch name {
	case "ES256":
		return crypto.SHA256, elliptic.P256()
	case "ES384":
		return crypto.SHA384, elliptic.P384()
	case "ES512":
		return crypto.SHA512, elliptic.P521()
	case "RS256":
		return crypto.SHA256, nil
	case "RS384":
		return crypto.SHA384, nil
	case "RS512":
		return crypto.SHA512, nil
	}
	return 0, nil
}

// octets is the size of one coordinate of a curve.
func octets(c elliptic.Curve) int { return (c.Params().BitSize + 7) / 8 }

// publicKey reads the key a signature says it was made with.
func publicKey(h docker.V1SignatureHeader) (crypto.PublicKey, error) {
	switch {
	case h.JWK != nil && len(h.X5C) > 0:
		return nil, badSignature("there are two keys, a jwk and an x5c")
	case len(h.X5C) > 0:
		der, err := base64.StdEncoding.DecodeString(h.X5C[0])
		if err != nil {
			return nil, badSignature("the certificate is not base64")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, badSignature("the certificate cannot be read")
		}
		return cert.PublicKey, nil
	case h.JWK == nil:
		return nil, badSignature("there is no key")
	case h.JWK.KeyType == "EC":
		return curveKey(*h.JWK)
	case h.JWK.KeyType == "RSA":
		return rsaKey(*h.JWK)
	}
	return nil, kimg.Errorf(kimg.ErrUnsupported, "", "signature: a key of type %s", kimg.Quote(h.JWK.KeyType))
}

func curveKey(k docker.V1Key) (crypto.PublicKey, error) {
	var curve elliptic.Curve
	switch k.Curve {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, kimg.Errorf(kimg.ErrUnsupported, "", "signature: a key on the curve %s", kimg.Quote(k.Curve))
	}
	x, okX := fromBase64URL(k.X)
	y, okY := fromBase64URL(k.Y)
	if okX && okY && len(x) == octets(curve) && len(y) == octets(curve) {
		const uncompressed = 4
		if key, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{uncompressed}, x...), y...)); err == nil {
			return key, nil
		}
	}
	return nil, badSignature("the key is not a point on its curve")
}

func rsaKey(k docker.V1Key) (crypto.PublicKey, error) {
	n, okN := fromBase64URL(k.N)
	e, okE := fromBase64URL(k.E)
	exponent := new(big.Int).SetBytes(e)
	if !okN || !okE || len(n) == 0 || exponent.BitLen() > 31 {
		return nil, badSignature("the RSA key cannot be read")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

// keyID names a key as registries do: base32 of the beginning of its digest, in groups of four.
func keyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", badSignature("the key cannot be written: %w", err)
	}
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	var groups []string
	for ; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, ":"), nil
}
