package docker_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/kimg/kimg/convert/docker"
)

func TestStrings(t *testing.T) {
	for text, want := range map[string]docker.Strings{
		`["a","b"]`: {"a", "b"}, `[]`: {}, `null`: nil, `"a b"`: {"a b"}, `""`: {""}, `"\u0061"`: {"a"},
	} {
		var got docker.Strings
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v %v", text, got, err)
		}
	}
	for _, bad := range []string{`1`, `{}`, `[1]`, `true`} {
		var got docker.Strings
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: %#v", bad, got)
		}
	}
}

// Nothing is written that says nothing, but what must be there and the two values that are not nothing.
func TestEmptyIsNotWritten(t *testing.T) {
	zero, none := 0, int64(0)
	for _, c := range []struct {
		v    any
		want string
	}{
		{docker.Image{}, `{"rootfs":{"type":"","diff_ids":null}}`},
		{docker.Config{StopTimeout: &zero}, `{"StopTimeout":0}`},
		{docker.Config{Healthcheck: &docker.Healthcheck{}}, `{"Healthcheck":{}}`},
		{docker.History{}, `{}`},
		{docker.V1Image{Size: &none}, `{"Size":0}`},
	} {
		if got, err := json.Marshal(c.v); err != nil || string(got) != c.want {
			t.Errorf("%s %v", got, err)
		}
	}
}

// A schema 1 manifest as a registry signs it reads completely.
func TestV1Manifest(t *testing.T) {
	const text = `{"schemaVersion":1,"name":"library/x","tag":"1","architecture":"amd64",` +
		`"fsLayers":[{"blobSum":"sha256:aa"}],"history":[{"v1Compatibility":"{\"id\":\"x\",\"throwaway\":true,\"Size\":0}"}],` +
		`"signatures":[{"header":{"jwk":{"kty":"EC","kid":"k","crv":"P-256","x":"x","y":"y"},"alg":"ES256"},"signature":"s","protected":"p"}]}`
	var m docker.V1Manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(m); err != nil || string(again) != text {
		t.Errorf("%s %v", again, err)
	}
	var img docker.V1Image
	if err := json.Unmarshal([]byte(m.History[0].V1Compatibility), &img); err != nil || !img.Throwaway || img.Size == nil {
		t.Errorf("%+v %v", img, err)
	}
}
