package convert_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/convert"
)

// v1Text is one entry of a schema 1 manifest: its blob and its v1Compatibility text.
type v1Text struct{ blob, text string }

// v1Doc writes an unsigned schema 1 manifest, entries base first.
func v1Doc(entries ...v1Text) string {
	var blobs, texts []string
	for _, e := range slices.Backward(entries) {
		text, _ := json.Marshal(e.text)
		blobs = append(blobs, `{"blobSum":"`+e.blob+`"}`)
		texts = append(texts, `{"v1Compatibility":`+string(text)+`}`)
	}
	return `{"schemaVersion":1,"name":"library/x","tag":"1","architecture":"arm64",` +
		`"fsLayers":[` + strings.Join(blobs, ",") + `],"history":[` + strings.Join(texts, ",") + `]}`
}

// hex64 is an id of one digit.
func hex64(digit string) string { return strings.Repeat(digit, 64) }

// emptyBlob is the digest that everybody puts into entries without a layer.
const emptyBlob = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"

// v1Good are three entries: a layer, an empty one, a layer with the configuration.
func v1Good() []v1Text {
	return []v1Text{
		{blobA, `{"id":"` + hex64("1") + `","created":"2016-01-01T00:00:00.100000000Z","container_config":{"Cmd":["/bin/sh","-c","ADD <x>"]},"author":"me"}`},
		{emptyBlob, `{"id":"` + hex64("2") + `","parent":"` + hex64("1") + `","created":"2016-01-02T00:00:00+02:00","container_config":{"Cmd":"CMD"},"throwaway":true}`},
		{blobB, `{"id":"` + hex64("3") + `","parent":"` + hex64("2") + `","created":"2016-01-03T00:00:00Z","docker_version":"1.12.1","config":{"Cmd":["<&>"],"Hostname":""},"os":"linux","architecture":"amd64","Size":7,"x":[1.0, {"a":null}]}`},
	}
}

// v1AtDestination are the layers of v1Good at a destination.
func v1AtDestination() []convert.Layer {
	return []convert.Layer{{DiffID: diffA, Digest: blobA, Size: 1}, {DiffID: diffB, Digest: blobB, Size: 2, MediaType: convertGzip}}
}

const convertGzip = "application/vnd.oci.image.layer.v1.tar+gzip"

// signature is what sign puts into a document; a test changes it to what it wants to see refused.
type signature struct {
	header    map[string]any
	protected string // JSON
	encoded   string // base64url of protected; made from it when empty
	value     string
}

// sign wraps a payload as signed manifests are, with any signatures. Of each the protected header is filled in when it
// is empty.
func sign(payload string, signatures ...signature) string {
	length := len(strings.TrimRight(strings.TrimSuffix(strings.TrimRight(payload, " \n"), "}"), " \n"))
	var all []any
	for _, s := range signatures {
		if s.protected == "" {
			s.protected = fmt.Sprintf(`{"formatLength":%d,"formatTail":"%s"}`, length, base64url(payload[length:]))
		}
		if s.encoded == "" {
			s.encoded = base64url(s.protected)
		}
		all = append(all, map[string]any{"header": s.header, "signature": s.value, "protected": s.encoded})
	}
	list, _ := json.Marshal(all)
	return payload[:length] + `,"signatures":` + string(list) + "}"
}

func base64url(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// fromV1 converts a schema 1 image that must be good.
func fromV1(t testing.TB, manifest string, to convert.Format, layers []convert.Layer, o convert.Options) (convert.Document, convert.Report) {
	t.Helper()
	doc, report, err := convert.Convert(convert.Document{Manifest: []byte(manifest)}, to, layers, o)
	if err != nil {
		t.Fatal(err)
	}
	return doc, report
}
