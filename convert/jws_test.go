package convert_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/testimage"
)

// Whatever surrounds the payload, it alone is read, and it alone has the digest.
func TestPayload(t *testing.T) {
	for _, payload := range []string{v1Doc(v1Good()...), strings.TrimSuffix(v1Doc(v1Good()...), "}") + "\n}\n"} {
		plain, err := convert.ParseSchema1([]byte(payload))
		if err != nil || plain.Signed {
			t.Fatal(err)
		}
		for _, doc := range []string{sign(payload, signature{}), sign(payload, signature{}, signature{value: "other"}), sign(payload, signature{}) + " \n"} {
			s, err := convert.ParseSchema1([]byte(doc))
			if err != nil || !s.Signed || s.Digest != plain.Digest {
				t.Errorf("%+v %v", s, err)
			}
			if d, err := convert.ManifestDigest([]byte(doc)); err != nil || d != plain.Digest {
				t.Errorf("%s %v", d, err)
			}
		}
	}
}

func TestRefusedSignatures(t *testing.T) {
	payload := v1Doc(v1Good()...)
	protected := func(format string, args ...any) string {
		return sign(payload, signature{protected: fmt.Sprintf(format, args...)})
	}
	tail := base64url("}")
	length := len(payload) - 1
	evil := `,"fsLayers":[{"blobSum":"` + diffC + `"},{"blobSum":"` + diffC + `"},{"blobSum":"` + diffC + `"}]`
	good := sign(payload, signature{})
	for name, c := range map[string]struct {
		doc   string
		class kimg.Class
		text  string
	}{
		"no signatures":     {strings.Replace(payload, `"name"`, `"signatures":[],"name"`, 1), kimg.ErrInvalid, "signature: there is a list of signatures, but none in it"},
		"null":              {strings.Replace(payload, `"name"`, `"signatures":null,"name"`, 1), kimg.ErrInvalid, "signature: "},
		"null in list":      {strings.Replace(payload, `"name"`, `"signatures":[null],"name"`, 1), kimg.ErrInvalid, "json-type: "},
		"no list":           {strings.Replace(payload, `"name"`, `"signatures":{},"name"`, 1), kimg.ErrInvalid, "json-type: signatures "},
		"other case":        {strings.Replace(good, `"signatures"`, `"Signatures"`, 1), kimg.ErrInvalid, "duplicate-key: "},
		"other case inside": {strings.Replace(good, `"protected"`, `"Protected"`, 1), kimg.ErrInvalid, "duplicate-key: "},
		"twice":             {strings.Replace(good, `,"signatures"`, `,"signatures":[],"signatures"`, 1), kimg.ErrInvalid, "duplicate-key: "},
		"empty signature":   {strings.Replace(payload, `"name"`, `"signatures":[{}],"name"`, 1), kimg.ErrInvalid, "signature: signatures[0].protected: json: empty"},

		"length -1":       {protected(`{"formatLength":-1,"formatTail":"%s"}`, tail), kimg.ErrInvalid, "signature: formatLength is -1, in a document of "},
		"length 0":        {protected(`{"formatLength":0,"formatTail":"%s"}`, base64url(payload)), kimg.ErrInvalid, "signature: formatLength is 0, "},
		"no length":       {protected(`{"formatTail":"%s"}`, base64url(payload)), kimg.ErrInvalid, "signature: formatLength is 0, "},
		"length 1e30":     {protected(`{"formatLength":1e30,"formatTail":"%s"}`, tail), kimg.ErrInvalid, "signature: signatures[0].protected: json-type: formatLength is a number"},
		"length 1.5":      {protected(`{"formatLength":1.5,"formatTail":"%s"}`, tail), kimg.ErrInvalid, "signature: signatures[0].protected: json-type: formatLength"},
		"length text":     {protected(`{"formatLength":"%d","formatTail":"%s"}`, length, tail), kimg.ErrInvalid, "signature: signatures[0].protected: json-type: formatLength"},
		"length 2^63":     {protected(`{"formatLength":9223372036854775807,"formatTail":"%s"}`, tail), kimg.ErrInvalid, "signature: formatLength is 9223372036854775807, "},
		"length 2^64":     {protected(`{"formatLength":18446744073709551617,"formatTail":"%s"}`, tail), kimg.ErrInvalid, "signature: signatures[0].protected: json-type: "},
		"length past end": {protected(`{"formatLength":%d,"formatTail":"%s"}`, 1<<20, tail), kimg.ErrInvalid, "signature: formatLength is 1048576, "},
		"length twice":    {protected(`{"formatLength":%d,"FormatLength":1,"formatTail":"%s"}`, length, tail), kimg.ErrInvalid, "signature: signatures[0].protected: duplicate-key: "},
		"too short":       {protected(`{"formatLength":%d,"formatTail":"%s"}`, length-9, tail), kimg.ErrInvalid, "signature: the payload: json: "},
		"one too long":    {protected(`{"formatLength":%d,"formatTail":"%s"}`, length+1, tail), kimg.ErrInvalid, "signature: the payload: json: "},
		"no tail":         {protected(`{"formatLength":%d}`, length), kimg.ErrInvalid, "signature: the payload: json: cut short"},
		"bad tail":        {protected(`{"formatLength":%d,"formatTail":"fQ=="}`, length), kimg.ErrInvalid, "signature: formatTail is not base64url"},
		"other tail":      {protected(`{"formatLength":%d,"formatTail":"%s"}`, length, base64url(`,"tag":"evil"}`)), kimg.ErrInvalid, "signature: the payload: duplicate-key: "},
		"tail with more":  {protected(`{"formatLength":%d,"formatTail":"%s"}`, length, base64url(`,"more":1}`)), kimg.ErrInvalid, "signature: the document does not say all that was signed"},
		"tail is a text":  {protected(`{"formatLength":1,"formatTail":"%s"}`, base64url(payload[1:])+"\n"), kimg.ErrInvalid, "signature: "},
		"list":            {protected(`[]`), kimg.ErrInvalid, "signature: signatures[0].protected: json-type: "},
		"not base64":      {sign(payload, signature{encoded: "!"}), kimg.ErrInvalid, "signature: signatures[0].protected is not base64url"},
		"padded":          {sign(payload, signature{encoded: base64.URLEncoding.EncodeToString([]byte("{}"))}), kimg.ErrInvalid, "signature: signatures[0].protected is not base64url"},
		"broken lines":    {sign(payload, signature{encoded: "e3\n0"}), kimg.ErrInvalid, "signature: signatures[0].protected is not base64url"},

		"lengths differ": {sign(payload, signature{}, signature{protected: fmt.Sprintf(`{"formatLength":%d,"formatTail":"%s"}`, length-1, base64url("]}"))}), kimg.ErrInvalid, "signature: the signatures are of different payloads"},
		"tails differ":   {sign(payload, signature{}, signature{protected: fmt.Sprintf(`{"formatLength":%d,"formatTail":"%s"}`, length, base64url(" }"))}), kimg.ErrInvalid, "signature: the signatures are of different payloads"},
		"many":           {sign(payload, make([]signature, 17)...), kimg.ErrLimit, "too-big: 17 signatures"},

		"member after":             {strings.TrimSuffix(good, "}") + `,"more":1}`, kimg.ErrInvalid, "signature: the document does not say what was signed"},
		"second layers after":      {strings.TrimSuffix(good, "}") + evil + "}", kimg.ErrInvalid, "duplicate-key: "},
		"layers in other case":     {strings.TrimSuffix(good, "}") + strings.Replace(evil, "fsLayers", "FSLayers", 1) + "}", kimg.ErrInvalid, "duplicate-key: "},
		"layers only after":        {strings.TrimSuffix(sign(strings.Replace(payload, `"fsLayers"`, `"x"`, 1), signature{}), "}") + evil + "}", kimg.ErrInvalid, "signature: the document does not say what was signed"},
		"schema 2 after":           {strings.TrimSuffix(good, "}") + `,"config":{},"layers":[]}`, kimg.ErrInvalid, "ambiguous: "},
		"payload signed by itself": {sign(good, signature{}), kimg.ErrInvalid, "duplicate-key: "},
	} {
		s, err := convert.ParseSchema1([]byte(c.doc))
		if kimg.ClassOf(err) != c.class || !strings.HasPrefix(err.Error(), "manifest: "+c.text) {
			t.Errorf("%s: %v, %+v", name, err, s)
			continue
		}
		oneLine(t, err)
		if _, again := convert.VerifyJWS([]byte(c.doc)); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: verified: %v", name, again)
		}
		if _, again := convert.ManifestDigest([]byte(c.doc)); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: digested: %v", name, again)
		}
		if doc, report, again := convert.Convert(convert.Document{Manifest: []byte(c.doc)}, convert.OCI, v1AtDestination(), convert.Options{}); again == nil || again.Error() != err.Error() || doc.Manifest != nil || report != nil {
			t.Errorf("%s: converted: %v", name, again)
		}
	}
}

// The signatures of the registries verify, whoever wrote them; a change anywhere in the payload does not.
func TestVerifyJWS(t *testing.T) {
	img := testimage.NewV1(testimage.V1Options{Seed: 3, Layers: 2, Empty: 1, Signed: true})
	ids, err := convert.VerifyJWS(img.Manifest)
	if err != nil || !slices.Equal(ids, []string{testimage.KeyID(testimage.Key(3))}) {
		t.Errorf("%v %v", ids, err)
	}
	two := testimage.SignV1(img.Payload, testimage.Key(1), testimage.Key(2))
	if ids, err := convert.VerifyJWS(two); err != nil || len(ids) != 2 {
		t.Errorf("%v %v", ids, err)
	}
	changed := strings.Replace(string(img.Manifest), `"tag": "latest"`, `"tag": "LATEST"`, 1)
	if _, err := convert.VerifyJWS([]byte(changed)); kimg.ClassOf(err) != kimg.ErrIntegrity || !strings.HasPrefix(err.Error(), "manifest: signatures[0]: signature: ") {
		t.Error(err)
	}
	if _, err := convert.ParseSchema1([]byte(changed)); err != nil {
		t.Error("reading is not verifying", err)
	}
	if _, err := convert.VerifyJWS(img.Payload); kimg.ClassOf(err) != kimg.ErrInvalid || !strings.Contains(err.Error(), "signature: the manifest is not signed") {
		t.Error(err)
	}
	if _, err := convert.VerifyJWS([]byte(dockerManifest)); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
}

// signer makes signatures with one key.
type signer struct {
	key crypto.Signer
	jwk map[string]any
}

func ecSigner(t testing.TB, name string, curve elliptic.Curve) signer {
	raw := make([]byte, (curve.Params().BitSize+7)/8)
	raw[len(raw)-1], raw[5] = 7, 1
	key, err := ecdsa.ParseRawPrivateKey(curve, raw)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	half := (len(point) - 1) / 2
	return signer{key, map[string]any{"kty": "EC", "crv": name, "x": base64url(string(point[1 : 1+half])), "y": base64url(string(point[1+half:]))}}
}

func rsaSigner(t testing.TB) signer {
	key, err := rsa.GenerateKey(nil, 2048) // a new one each time: nothing depends on which
	if err != nil {
		t.Fatal(err)
	}
	e := big.NewInt(int64(key.E)).Bytes()
	return signer{key, map[string]any{"kty": "RSA", "n": base64url(string(key.N.Bytes())), "e": base64url(string(e))}}
}

func (s signer) sign(t testing.TB, payload, alg string, hash crypto.Hash, header map[string]any) signature {
	length := len(payload) - 1
	sig := signature{header: header, protected: fmt.Sprintf(`{"formatLength":%d,"formatTail":"fQ"}`, length)}
	h := hash.New()
	h.Write([]byte(base64url(sig.protected) + "." + base64url(payload)))
	raw, err := s.key.Sign(nil, h.Sum(nil), hash)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := s.key.(*ecdsa.PrivateKey); ok {
		var pair struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(raw, &pair); err != nil {
			t.Fatal(err)
		}
		n := (key.Params().BitSize + 7) / 8
		raw = append(pair.R.FillBytes(make([]byte, n)), pair.S.FillBytes(make([]byte, n))...)
	}
	sig.value = base64url(string(raw))
	return sig
}

func TestAlgorithms(t *testing.T) {
	payload := v1Doc(v1Good()...)
	p256, p384, p521, rsa2048 := ecSigner(t, "P-256", elliptic.P256()), ecSigner(t, "P-384", elliptic.P384()), ecSigner(t, "P-521", elliptic.P521()), rsaSigner(t)
	cert := func(s signer) []string {
		template := x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(nil, &template, &template, s.key.Public(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		return []string{base64.StdEncoding.EncodeToString(der), "the others are not read"}
	}
	with := func(jwk map[string]any, name string, value any) map[string]any {
		changed := map[string]any{name: value}
		for k, v := range jwk {
			if k != name {
				changed[k] = v
			}
		}
		return changed
	}
	for _, c := range []struct {
		name   string
		s      signer
		alg    string
		hash   crypto.Hash
		header map[string]any
		class  kimg.Class
		text   string
	}{
		{"P-256", p256, "ES256", crypto.SHA256, map[string]any{"jwk": p256.jwk}, "", ""},
		{"P-384", p384, "ES384", crypto.SHA384, map[string]any{"jwk": p384.jwk}, "", ""},
		{"P-521", p521, "ES512", crypto.SHA512, map[string]any{"jwk": p521.jwk}, "", ""},
		{"RSA 256", rsa2048, "RS256", crypto.SHA256, map[string]any{"jwk": rsa2048.jwk}, "", ""},
		{"RSA 384", rsa2048, "RS384", crypto.SHA384, map[string]any{"jwk": rsa2048.jwk}, "", ""},
		{"RSA 512", rsa2048, "RS512", crypto.SHA512, map[string]any{"jwk": rsa2048.jwk}, "", ""},
		{"certificate", p256, "ES256", crypto.SHA256, map[string]any{"x5c": cert(p256)}, "", ""},
		{"RSA certificate", rsa2048, "RS256", crypto.SHA256, map[string]any{"x5c": cert(rsa2048)}, "", ""},

		{"other key", p256, "ES256", crypto.SHA256, map[string]any{"x5c": cert(p384)}, kimg.ErrInvalid, "signature: the key is not one of the algorithm"},
		{"RSA for EC", rsa2048, "ES256", crypto.SHA256, map[string]any{"jwk": rsa2048.jwk}, kimg.ErrInvalid, "signature: the key is not one of the algorithm"},
		{"EC for RSA", p256, "RS256", crypto.SHA256, map[string]any{"jwk": p256.jwk}, kimg.ErrInvalid, "signature: the key is not one of the algorithm"},
		{"other hash", rsa2048, "RS256", crypto.SHA512, map[string]any{"jwk": rsa2048.jwk}, kimg.ErrIntegrity, "signature: "},
		{"none", p256, "none", crypto.SHA256, map[string]any{"jwk": p256.jwk}, kimg.ErrUnsupported, `signature: algorithm "none"`},
		{"HMAC", p256, "HS256", crypto.SHA256, map[string]any{"jwk": p256.jwk}, kimg.ErrUnsupported, "signature: algorithm"},
		{"two keys", p256, "ES256", crypto.SHA256, map[string]any{"jwk": p256.jwk, "x5c": cert(p256)}, kimg.ErrInvalid, "signature: there are two keys"},
		{"no key", p256, "ES256", crypto.SHA256, map[string]any{"x5c": []string{}}, kimg.ErrInvalid, "signature: there is no key"},
		{"key type", p256, "ES256", crypto.SHA256, map[string]any{"jwk": with(p256.jwk, "kty", "oct")}, kimg.ErrUnsupported, "signature: a key of type"},
		{"curve", p256, "ES256", crypto.SHA256, map[string]any{"jwk": with(p256.jwk, "crv", "P-224")}, kimg.ErrUnsupported, "signature: a key on the curve"},
		{"other curve", p256, "ES256", crypto.SHA256, map[string]any{"jwk": with(p256.jwk, "crv", "P-521")}, kimg.ErrInvalid, "signature: the key is not a point"},
		{"no point", p256, "ES256", crypto.SHA256, map[string]any{"jwk": with(p256.jwk, "y", p256.jwk["x"])}, kimg.ErrInvalid, "signature: the key is not a point"},
		{"padded", p256, "ES256", crypto.SHA256, map[string]any{"jwk": with(p256.jwk, "y", p256.jwk["y"].(string)+"=")}, kimg.ErrInvalid, "signature: the key is not a point"},
		{"other id", p256, "ES256", crypto.SHA256, map[string]any{"jwk": with(p256.jwk, "kid", "AAAA")}, kimg.ErrIntegrity, "signature: the key has another id"},
		{"RSA exponent", rsa2048, "RS256", crypto.SHA256, map[string]any{"jwk": with(rsa2048.jwk, "e", strings.Repeat("_", 44))}, kimg.ErrInvalid, "signature: the RSA key"},
		{"RSA modulus", rsa2048, "RS256", crypto.SHA256, map[string]any{"jwk": with(rsa2048.jwk, "n", "")}, kimg.ErrInvalid, "signature: the RSA key"},
		{"RSA exponent 0", rsa2048, "RS256", crypto.SHA256, map[string]any{"jwk": with(rsa2048.jwk, "e", "")}, kimg.ErrIntegrity, "signature: "},
		{"RSA too long", rsa2048, "RS256", crypto.SHA256, map[string]any{"jwk": with(rsa2048.jwk, "n", base64url(strings.Repeat("\xff", 1<<20)))}, kimg.ErrLimit, "too-big: an RSA key of 8388608 bits"},
		{"certificate text", p256, "ES256", crypto.SHA256, map[string]any{"x5c": []string{"!"}}, kimg.ErrInvalid, "signature: the certificate is not base64"},
		{"no certificate", p256, "ES256", crypto.SHA256, map[string]any{"x5c": []string{"e30="}}, kimg.ErrInvalid, "signature: the certificate cannot be read"},
	} {
		c.header["alg"] = c.alg
		ids, err := convert.VerifyJWS([]byte(sign(payload, c.s.sign(t, payload, c.alg, c.hash, c.header))))
		if kimg.ClassOf(err) != c.class || err != nil && !strings.HasPrefix(err.Error(), "manifest: signatures[0]: "+c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && len(ids) != 1 || err != nil && ids != nil {
			t.Errorf("%s: %v", c.name, ids)
		}
	}
	good := p256.sign(t, payload, "ES256", crypto.SHA256, map[string]any{"jwk": p256.jwk, "alg": "ES256"})
	for _, value := range []string{"", "!", good.value + "=", good.value[:80], good.value + good.value, strings.ToLower(good.value)} {
		good.value = value
		if _, err := convert.VerifyJWS([]byte(sign(payload, good))); err == nil {
			t.Errorf("%q is taken for a signature", value)
		}
	}
}
