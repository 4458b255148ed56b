package convert_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
)

// A configuration as a Docker daemon writes it, with keys, numbers and texts that must survive untouched.
const dockerConfig = `{
 "architecture": "amd64", "future": {"n": 123456789012345678901234567890, "list": [1, 2.50, {"a": null}]},
 "config": {"Hostname": "c0ffee", "Domainname": "", "User": "", "AttachStdin": false,
  "ExposedPorts": {"80/tcp": {}, "80/TCP": {}}, "Env": ["PATH=/usr/bin:/bin", "A=\u003cb\u003e"], "Cmd": ["sh", "-c", "true"],
  "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 9000000000000000000, "StartInterval": 5000000000, "Retries": 3, "New": 1},
  "ArgsEscaped": true, "Image": "sha256:4f83", "Volumes": null, "WorkingDir": "/srv", "Entrypoint": null,
  "OnBuild": ["RUN x"], "Labels": {"a": "1", "A": "2"}, "StopSignal": "SIGTERM", "StopTimeout": 0, "Shell": ["/bin/ash", "-c"],
  "Gpus": [{"id": 1e400}]},
 "container": "8825acde1b009729807e4b70a65a89399dd8da8e53be9216b9aaabaff4339f69",
 "container_config": {"Cmd": "sh -c true", "Memory": 9223372036854775807, "CpuShares": 2, "Unheard": "of"},
 "created": "2016-09-23T23:20:45.100000000+02:00", "docker_version": "1.12.1", "comment": "said", "author": "me",
 "history": [
  {"created": "2016-09-23T18:08:50.500000000Z", "created_by": "ADD file:c6 in /", "note": 7},
  {"created": "2016-09-23T18:08:51Z", "created_by": "CMD [\"bash\"]", "empty_layer": true},
  {"created": "2016-09-23T18:09:00Z", "created_by": "RUN \u0026"}],
 "os": "linux", "os.version": "10.0", "os.features": ["win32k"], "variant": "v2", "parent": "sha256:aa",
 "rootfs": {"type": "layers", "diff_ids": ["` + diffA + `", "` + diffB + `"], "extra": true}
}`

const (
	diffA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	diffB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	diffC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	blobA = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	blobB = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// A configuration as an OCI builder writes the smallest one.
const ociConfig = `{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + diffA + `"]}}`

// document makes an image of a configuration with n layers.
func document(t fataler, f convert.Format, config string, n int) convert.Document {
	t.Helper()
	layers := make([]convert.Layer, n)
	for i := range layers {
		layers[i] = convert.Layer{Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i)}
	}
	manifest, _, err := convert.Manifest(f, descriptor(config), layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	return convert.Document{Format: f, Manifest: manifest, Config: []byte(config)}
}

func descriptor(config string) ispec.Descriptor {
	return ispec.Descriptor{Digest: digest.NewDigestFromBytes(digest.SHA256, sum(config)), Size: int64(len(config))}
}

func sum(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// parse reads a configuration that must be good.
func parse(t testing.TB, f convert.Format, config string) convert.Config {
	t.Helper()
	c, err := convert.Parse(convert.Document{Format: f, Config: []byte(config)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// text is the configuration as a document that must be writable.
func text(t testing.TB, c convert.Config, f convert.Format) string {
	t.Helper()
	data, _, err := c.JSON(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// meaning is a document without spacing and order of members; numbers keep their text.
func meaning(t testing.TB, data string) string {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
