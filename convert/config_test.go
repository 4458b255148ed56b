package convert_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

func TestUntouchedBytes(t *testing.T) {
	for _, from := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			for _, config := range []string{dockerConfig, ociConfig} {
				c := parse(t, from, config)
				data, report, err := c.JSON(to)
				if err != nil || string(data) != config || len(report) != 0 || c.Edited() {
					t.Errorf("%s to %s: %v %v\n%s", from, to, err, report, data)
				}
			}
		}
	}
}

func TestDockerView(t *testing.T) {
	img := parse(t, convert.DockerV2S2, dockerConfig).Docker()
	if got := img.ContainerConfig.Cmd; len(got) != 1 || got[0] != "sh -c true" {
		t.Errorf("string Cmd: %q", got)
	}
	if img.Config.StopTimeout == nil || *img.Config.StopTimeout != 0 {
		t.Error("StopTimeout 0 is lost")
	}
	if h := img.Config.Healthcheck; h.StartInterval != 5*time.Second || h.Interval != 9e18 {
		t.Errorf("health check: %+v", h)
	}
	if img.ContainerConfig.Memory != 1<<63-1 || len(img.Config.ExposedPorts) != 2 || len(img.Config.Labels) != 2 {
		t.Errorf("%+v", img)
	}
	if c := parse(t, convert.OCI, ociConfig).Docker(); c.Config == nil || c.Created != nil {
		t.Errorf("%+v", c)
	}
}

func TestOCIView(t *testing.T) {
	img := parse(t, convert.DockerV2S2, dockerConfig).OCI()
	if img.OSVersion != "10.0" || img.Variant != "v2" || img.Config.StopSignal != "SIGTERM" || len(img.History) != 3 {
		t.Errorf("%+v", img)
	}
	if img := parse(t, convert.OCI, ociConfig).OCI(); img.Created != nil || img.RootFS.DiffIDs == nil {
		t.Errorf("%+v", img)
	}
}

func TestProjectionFillsIn(t *testing.T) {
	const old = `{"config":{"Cmd":"sh","Entrypoint":"\/init","X":1}, "container_config":{"Cmd":"y"},"rootfs":{"type":"layers","diff_ids":null,"z":0}}`
	c := parse(t, convert.DockerV2S2, old)
	data, report, err := c.JSON(convert.OCI)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"config":{"Cmd":["sh"],"Entrypoint":["/init"],"X":1},"container_config":{"Cmd":"y"},` +
		`"rootfs":{"type":"layers","diff_ids":[],"z":0},"architecture":"amd64","os":"linux"}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
	var paths []string
	for _, r := range report {
		paths = append(paths, string(r.Kind)+" "+r.Path)
	}
	if d := cmp.Diff(paths, []string{"changed config.Cmd", "changed config.Entrypoint", "changed rootfs.diff_ids", "added architecture", "added os"}); d != "" {
		t.Error(d)
	}
	if text(t, c, convert.DockerV2S2) != old {
		t.Error("the Docker form changed")
	}
	if again := parse(t, convert.OCI, want); text(t, again, convert.OCI) != want {
		t.Error("not a fixed point")
	}
}

func TestLoneMisspelling(t *testing.T) {
	const odd = `{"Architecture":"arm64","os":"linux","config":{"cmd":["a"],"Labels":{"x":"1"}},"rootfs":{"type":"layers","DIFF_IDS":[]}}`
	c := parse(t, convert.DockerV2S2, odd)
	if text(t, c, convert.DockerV2S2) != odd {
		t.Error("an untouched document changed")
	}
	data, report, err := c.JSON(convert.OCI)
	if err != nil || len(report) != 3 || report[1].Path != "config.Cmd" || strings.Contains(string(data), "cmd") || c.OCI().Architecture != "arm64" {
		t.Errorf("%s %v %v", data, report, err)
	}
	c, err = c.Edit(func(img *docker.Image) error { img.Config.Cmd = []string{"b"}; return nil })
	if err != nil || !strings.Contains(text(t, c, convert.DockerV2S2), `"config":{"Cmd":["b"],"Labels":{"x":"1"}}`) {
		t.Errorf("%v %s", err, text(t, c, convert.DockerV2S2))
	}
}

func TestYearOne(t *testing.T) {
	c, err := convert.NewConfig("linux", "amd64", "").Edit(func(img *docker.Image) error {
		img.Created = &time.Time{}
		img.History = []docker.History{{Created: &time.Time{}, EmptyLayer: true}}
		return nil
	})
	if err != nil || strings.Contains(text(t, c, convert.OCI), "0001") {
		t.Errorf("%v %s", err, text(t, c, convert.OCI))
	}
	const said = `{"created":"0001-01-01T00:00:00Z","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	if text(t, parse(t, convert.OCI, said), convert.OCI) != said {
		t.Error("what the source says itself changed")
	}
}

func TestScratch(t *testing.T) {
	c := convert.NewConfig("linux", "arm", "v7")
	const want = `{"architecture":"arm","variant":"v7","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],` +
		`"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":[]}}`
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		if got := text(t, c, f); got != want {
			t.Errorf("%s: %s", f, got)
		}
	}
	if !c.Edited() || c.Format() != "" || c.Source() != nil || c.OCI().Created != nil {
		t.Error("scratch has a source")
	}
	if env := convert.NewConfig("windows", "amd64", "").Docker().Config.Env; env != nil {
		t.Errorf("windows: %q", env)
	}
}

func TestParseDocuments(t *testing.T) {
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		doc := document(t, f, dockerConfig, 2)
		ids := []digest.Digest{diffA, diffB}
		if _, err := convert.Parse(doc, ids); err != nil {
			t.Error(err)
		}
		doc.Format = ""
		if c, err := convert.Parse(doc, nil); err != nil || c.Format() != f {
			t.Error(err)
		}
		for name, bad := range map[string]struct {
			class error
			word  string
			doc   convert.Document
			ids   []digest.Digest
		}{
			"layers":     {kimg.ErrInvalid, "count: 3 layers", document(t, f, dockerConfig, 3), nil},
			"real ids":   {kimg.ErrInvalid, "count: 1 layers", doc, ids[:1]},
			"other ids":  {kimg.ErrIntegrity, "diff-id", doc, []digest.Digest{diffA, diffA}},
			"config":     {kimg.ErrIntegrity, "blob-digest", convert.Document{Manifest: doc.Manifest, Config: []byte(strings.Replace(dockerConfig, "said", "Said", 1))}, nil},
			"short":      {kimg.ErrIntegrity, "size", convert.Document{Manifest: doc.Manifest, Config: []byte("{}")}, nil},
			"format":     {kimg.ErrInvalid, "media-type", convert.Document{Format: "oci2", Manifest: doc.Manifest, Config: doc.Config}, nil},
			"no format":  {kimg.ErrUnsupported, "media-type", convert.Document{Config: doc.Config}, nil},
			"schema 1":   {kimg.ErrInvalid, "schema-version", convert.Document{Format: convert.DockerV2S1}, nil},
			"schema 1 m": {kimg.ErrInvalid, "count", convert.Document{Manifest: []byte(`{"schemaVersion":1,"fsLayers":[],"history":[]}`)}, nil},
		} {
			_, err := convert.Parse(bad.doc, bad.ids)
			if !errors.Is(err, bad.class) || !strings.Contains(err.Error(), bad.word) {
				t.Errorf("%s %s: %v", f, name, err)
			}
		}
	}
}

func TestRefusedConfigs(t *testing.T) {
	good := `"architecture":"amd64","os":"linux"`
	root := `"rootfs":{"type":"layers","diff_ids":["` + diffA + `"]}`
	for word, configs := range map[string][]string{
		"json":      {``, ` `, `{`, `{"a":1,}`, "\xef\xbb\xbf{}", `{"author":"` + "\xff" + `"}`, `{} {}`, `{"author":"\ud800"}`, `nul`},
		"json-type": {`null`, `[]`, `"x"`, `{"author":1,` + root + `}`, `{"config":[],` + root + `}`, `{"history":[null],` + root + `}`, `{"config":{"Cmd":{}},` + root + `}`, `{"config":{"StopTimeout":1.5},` + root + `}`, `{"config":{"Memory":1e3},` + root + `}`, `{"config":{"Labels":{"a":1}},` + root + `}`, `{"config":{"Memory":9223372036854775808},` + root + `}`},
		"duplicate-key": {`{"a":1,"a":2,` + root + `}`, `{"os":"linux","OS":"windows",` + root + `}`, `{"x":{"a":1,"\u0061":2},` + root + `}`,
			`{"config":{"Cmd":[],"cmd":[]},` + root + `}`, `{"config":{"Labels":{"a":"1","a":"2"}},` + root + `}`, `{"rootfs":{"type":"layers","Type":"x","diff_ids":[]}}`,
			`{"history":[{"created_by":"a","Created_By":"b"}],` + root + `}`},
		"rootfs-type": {`{` + good + `}`, `{"rootfs":null}`, `{"rootfs":{"type":"layers+base"}}`, `{"rootfs":{"diff_ids":[]}}`},
		"digest":      {`{"rootfs":{"type":"layers","diff_ids":["sha256:A"]}}`, `{"rootfs":{"type":"layers","diff_ids":["md5:d41d8cd98f00b204e9800998ecf8427e"]}}`, `{"rootfs":{"type":"layers","diff_ids":[null]}}`},
		"count":       {`{"history":[{}, {}],` + root + `}`, `{"history":[{"empty_layer":true}],` + root + `}`},
		"timestamp":   {`{"created":"yesterday",` + root + `}`, `{"created":"2016-09-23 18:08:50Z",` + root + `}`, `{"created":1,` + root + `}`, `{"history":[{"created":"2016-09-23T18:08:50"}],` + root + `}`, `{"created":"2016-12-31T23:59:60Z",` + root + `}`, `{"created":"10000-12-31T23:59:00Z",` + root + `}`},
		"depth":       {`{"x":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + `,` + root + `}`},
		"too-big":     {`{"x":"` + strings.Repeat("x", 4<<20) + `",` + root + `}`, `{"history":[` + strings.Repeat(`{"empty_layer":true},`, 1000) + `{}],` + root + `}`, `{"rootfs":{"type":"layers","diff_ids":["` + diffA + `"` + strings.Repeat(`,"`+diffA+`"`, 500) + `]}}`},
	} {
		class := kimg.ErrInvalid
		if word == "depth" || word == "too-big" {
			class = kimg.ErrLimit
		}
		for _, config := range configs {
			for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
				_, err := convert.Parse(convert.Document{Format: f, Config: []byte(config)}, nil)
				if !errors.Is(err, class) || !strings.Contains(err.Error(), word+":") || len(kimg.Line(err)) > 400 {
					t.Errorf("%s: %.100s: %v", word, config, err)
				}
			}
		}
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	for _, config := range []string{
		`{"x":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `,"rootfs":{"type":"layers"}}`,
		`{"history":[` + strings.Repeat(`{"empty_layer":true},`, 999) + `{}],"rootfs":{"type":"layers","diff_ids":["` + diffA + `"]}}`,
		`{"rootfs":{"type":"layers","diff_ids":["` + diffA + `"` + strings.Repeat(`,"`+diffA+`"`, 499) + `]}}`,
	} {
		parse(t, convert.DockerV2S2, config)
	}
}

func TestZeroConfig(t *testing.T) {
	var c convert.Config
	if _, _, err := c.JSON(convert.OCI); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
	if _, err := c.Edit(func(*docker.Image) error { return nil }); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
	if c.Docker().OS != "" || c.OCI().OS != "" {
		t.Error("the zero Config says something")
	}
}
