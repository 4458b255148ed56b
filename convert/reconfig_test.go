package convert_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// A manifest with another configuration keeps all its other bytes, and gives them back.
func TestReconfigured(t *testing.T) {
	config, other := []byte(`{"a":1}`), []byte(`{"a":22}`)
	layer := fmt.Sprintf(`{ "mediaType":%%q, "size":7,"digest":"%s", "x": [1.0] }`, digest.FromString("layer"))
	for f, layerType := range map[convert.Format]string{
		convert.OCI: "application/vnd.oci.image.layer.v1.tar+gzip", convert.DockerV2S2: docker.MediaTypeLayerGzip,
	} {
		form := func(config []byte, rest string) []byte {
			d := fmt.Sprintf(`{"mediaType":%q,"size":%d,"digest":%q,"z":[ ]}`, f.ConfigType(), len(config), digest.FromBytes(config))
			if f == convert.OCI {
				d = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, f.ConfigType(), digest.FromBytes(config), len(config))
			}
			return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[`+layer+`],"unknown":{"y": 1e3}%s}`, f.ManifestType(), d, layerType, rest))
		}
		before := form(config, "")
		after, report, err := convert.Reconfigured(before, other, nil)
		if want := form(other, ""); err != nil || !bytes.Equal(after, want) || len(report) != 0 {
			t.Errorf("%s: %v %v\n%s\nwant\n%s", f, err, report, after, want)
		}
		if back, _, err := convert.Reconfigured(after, config, nil); err != nil || !bytes.Equal(back, before) {
			t.Errorf("%s: back: %v %s", f, err, back)
		}
		if same, _, err := convert.Reconfigured(append([]byte(" "), before...), config, nil); err != nil || !bytes.Equal(same[1:], before) {
			t.Errorf("%s: nothing changed, and yet: %v %s", f, err, same)
		}
		annotated, report, err := convert.Reconfigured(before, config, map[string]string{"k": "v"})
		want, losses := form(config, `,"annotations":{"k":"v"}`), 0
		if f == convert.DockerV2S2 {
			want, losses = before, 1
		}
		if err != nil || !bytes.Equal(annotated, want) || len(report) != losses {
			t.Errorf("%s: %v %v %s", f, err, report, annotated)
		}
		if back, _, err := convert.Reconfigured(annotated, config, nil); err != nil || !bytes.Equal(back, before) {
			t.Errorf("%s: annotations taken back: %v %s", f, err, back)
		}
	}
	if _, _, err := convert.Reconfigured([]byte(`{"schemaVersion":2,"manifests":[]}`), config, nil); err == nil {
		t.Error("an index has no configuration")
	}
	if _, _, err := convert.Reconfigured([]byte(`{}`), config, nil); !errors.Is(err, kimg.ErrInvalid) && !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
}

// What Docker alone defines is ignored by readers of OCI images, but only where it says something.
func TestIgnored(t *testing.T) {
	text := `{"architecture":"amd64","os":"linux","comment":"c","docker_version":"","container_config":{"User":"x"},"unknown":1,` +
		`"config":{"User":"u","Hostname":"","AttachStdin":false,"OnBuild":null,"Healthcheck":{"Test":["NONE"]},"ArgsEscaped":true,"StopTimeout":0},` +
		`"rootfs":{"type":"layers","diff_ids":[]},"history":[{"comment":%q,"empty_layer":true}]}`
	for comment, want := range map[string][]string{
		"c":     {"config.Healthcheck", "config.StopTimeout", "container_config"},
		"other": {"config.Healthcheck", "config.StopTimeout", "comment", "container_config"},
	} {
		config, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: []byte(fmt.Sprintf(text, comment))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		report, err := config.Ignored(convert.OCI)
		var got []string
		for _, c := range report {
			got = append(got, c.Path)
			if c.Kind != convert.Warning || c.Why == "" {
				t.Errorf("%v", c)
			}
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%v: %s, want %s", err, a, b)
		}
		if report, err := config.Ignored(convert.DockerV2S2); err != nil || report != nil {
			t.Error(report, err)
		}
	}
	if report, err := (convert.Config{}).Ignored(convert.OCI); err != nil || report != nil {
		t.Error(report, err)
	}
}
