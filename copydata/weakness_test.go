package copydata_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
)

// The tests of this file are named after what the state of containers in older tools got wrong.

// image makes an origin of a configuration, with the manifest that fits.
func image(t testing.TB, f convert.Format, config string, layers int) copydata.Origin {
	t.Helper()
	ls := make([]convert.Layer, layers)
	for i := range ls {
		ls[i] = convert.Layer{Digest: digest.FromString("layer"), Size: 5}
	}
	manifest, _, err := convert.Manifest(f, ispec.Descriptor{Digest: digest.FromString(config), Size: int64(len(config))}, ls, nil)
	if err != nil {
		t.Fatal(err)
	}
	return copydata.Origin{ImageName: "x", ImageID: imgID, Manifest: manifest, Config: []byte(config)}
}

const rootfs = `"rootfs":{"type":"layers","diff_ids":["` + diffA + `"]}`

// everything has every member that both formats know, and those that only Docker does.
const everything = `{"created":"2020-01-02T03:04:05Z","author":"a","architecture":"arm","variant":"v7","os":"linux","os.version":"1","os.features":["f"],
 "config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"l":"1"},"StopSignal":"SIGKILL","ArgsEscaped":true,
 "Healthcheck":{"Test":["CMD","h"],"Interval":1,"Timeout":2,"StartPeriod":3,"StartInterval":4,"Retries":5},"OnBuild":["RUN x"],"Shell":["s"],"StopTimeout":0,"Hostname":"h","Domainname":"d"},
 "comment":"c","history":[{"created":"2020-01-02T03:04:05Z","created_by":"b","author":"a","comment":"c"}],` + rootfs + `}`

func members(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func document(t *testing.T, c *copydata.CopyData, f convert.Format) []byte {
	t.Helper()
	data, _, err := c.Config().JSON(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWeaknessInitConfigInverted(t *testing.T) {
	c, err := copydata.New(image(t, convert.OCI, everything, 1), ctr, "")
	if err != nil {
		t.Fatal(err)
	}
	// The Docker side of an OCI image is filled from it, not only when reading it fails.
	d, o := c.Config().Docker(), c.Config().OCI()
	if d.Config.User != "u" || d.Architecture != "arm" || d.Created == nil || len(d.History) != 1 || len(d.RootFS.DiffIDs) != 1 || d.Config.Labels["l"] != "1" {
		t.Errorf("%+v", d)
	}
	if o.Config.User != "u" || o.Architecture != "arm" || o.Created == nil || len(o.History) != 1 || o.Variant != "v7" || o.Config.StopSignal != "SIGKILL" {
		t.Errorf("%+v", o)
	}
}

func TestWeaknessInitConfigDockerVersion(t *testing.T) {
	with := strings.Replace(everything, `"author"`, `"docker_version":"20.10.0","author"`, 1)
	for _, x := range []struct {
		format convert.Format
		config string
	}{{convert.DockerV2S2, everything} /* BuildKit's */, {convert.OCI, with}, {convert.OCI, everything}, {convert.DockerV2S2, with}} {
		c, dir := saved(t, image(t, x.format, x.config, 1))
		if got := c.Source().Format; got != x.format {
			t.Errorf("taken for %s, the media type says %s", got, x.format)
		}
		if got := load(t, dir).Source().Format; got != x.format {
			t.Errorf("after a save taken for %s, the media type says %s", got, x.format)
		}
	}
}

func TestWeaknessInitConfigSwallowsErrors(t *testing.T) {
	for _, bad := range []string{
		``, `{`, `null`, `[]`, `{"config":[],` + rootfs + `}`, `{"config":{"Env":{}},` + rootfs + `}`, `{"rootfs":{"type":"other","diff_ids":[]}}`,
		`{"created":"yesterday",` + rootfs + `}`, `{"history":[{"created":7}],` + rootfs + `}`, `{"os":1,` + rootfs + `}`, `{"os":"a","OS":"b",` + rootfs + `}`,
	} {
		for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			if c, err := copydata.New(image(t, f, bad, 1), ctr, ""); !errors.Is(err, kimg.ErrInvalid) || c != nil {
				t.Errorf("%s %q: %v", f, bad, err)
			}
		}
	}
}

func TestWeaknessFixupConfigNilCreated(t *testing.T) {
	const undated = `{"architecture":"amd64","os":"linux","history":[{"created_by":"x"},{"empty_layer":true}],` + rootfs + `}`
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		c, dir := saved(t, image(t, f, undated, 1))
		err := c.Update(func(s *copydata.Settings) error {
			s.Image.Author = "a"
			s.Image.Created = &time.Time{} // unknown, not year 1
			return nil
		})
		if err := errors.Join(err, c.Save(dir)); err != nil {
			t.Fatal(err)
		}
		c = load(t, dir)
		if c.Config().OCI().Created != nil || c.Config().Docker().Created != nil || c.Config().OCI().History[0].Created != nil {
			t.Error("a date out of nothing")
		}
		for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			if data := document(t, c, to); bytes.Contains(data, []byte("created\"")) {
				t.Errorf("%s", data)
			}
		}
	}
}

func TestWeaknessFixupConfigChangesTheDigest(t *testing.T) {
	const odd = `{ "architecture":"amd64","os":"linux","docker_version":"1.13","container_config":{"Cmd":["made"]},"config":{"Cmd":["c"],"WorkingDir":""},` + rootfs + "}\n"
	c, dir := saved(t, image(t, convert.DockerV2S2, odd, 1))
	for range 2 {
		if got := document(t, c, convert.DockerV2S2); string(got) != odd || c.Config().Edited() {
			t.Errorf("an untouched image changed:\n%s", got)
		}
		if d := c.Config().Docker(); d.Config.WorkingDir != "" || d.ContainerConfig.Cmd[0] != "made" || d.DockerVersion != "1.13" {
			t.Errorf("%+v", d)
		}
		if err := c.Save(dir); err != nil {
			t.Fatal(err)
		}
		c = load(t, dir)
	}
}

func TestWeaknessOSReadsOneSide(t *testing.T) {
	windows := `{"architecture":"s390x","os":"windows","os.version":"10.0.1",` + rootfs + `}`
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		c, dir := saved(t, image(t, f, windows, 1))
		if err := errors.Join(c.Update(func(s *copydata.Settings) error { s.Image.Author = "a"; return nil }), c.Save(dir)); err != nil {
			t.Fatal(err)
		}
		o, d := load(t, dir).Config().OCI(), load(t, dir).Config().Docker()
		if o.OS != "windows" || d.OS != "windows" || o.Architecture != "s390x" || d.Architecture != "s390x" || o.OSVersion != "10.0.1" {
			t.Errorf("%s: %+v %+v", f, o.Platform, d)
		}
	}
	// A platform that the image does not name is not the host's.
	c, _ := saved(t, image(t, convert.DockerV2S2, `{`+rootfs+`}`, 1))
	if d := c.Config().Docker(); d.OS != "" || d.Architecture != "" {
		t.Errorf("%s/%s out of nothing", d.OS, d.Architecture)
	}
}

func TestWeaknessMakeOCIv1ImageDropsFields(t *testing.T) {
	dropsNothing(t, convert.DockerV2S2, convert.OCI)
}

func TestWeaknessMakeDockerV2S2ImageDropsFields(t *testing.T) {
	dropsNothing(t, convert.OCI, convert.DockerV2S2)
}

// dropsNothing edits an image of one format and finds every member in the other.
func dropsNothing(t *testing.T, from, to convert.Format) {
	c, dir := saved(t, image(t, from, everything, 1))
	err := c.Update(func(s *copydata.Settings) error { s.Image.Config.Env = append(s.Image.Config.Env, "B=2"); return nil })
	if err := errors.Join(err, c.Save(dir)); err != nil {
		t.Fatal(err)
	}
	want := members(t, []byte(strings.Replace(everything, `"A=1"`, `"A=1","B=2"`, 1)))
	if d := cmp.Diff(want, members(t, document(t, load(t, dir), to))); d != "" {
		t.Error(d)
	}
	if img := load(t, dir).Config().OCI(); img.RootFS.Type != "layers" {
		t.Errorf("rootfs.type %q", img.RootFS.Type)
	}
}

func TestWeaknessOpenCopyDataNull(t *testing.T) {
	for _, member := range []string{"", "docker", "ociv1", "config", "manifest", "format"} {
		_, dir := saved(t, origin(t, convert.OCI))
		data := []byte("null")
		if member != "" {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(content(t, dir), &m); err != nil {
				t.Fatal(err)
			}
			m[member] = json.RawMessage("null")
			data, _ = json.Marshal(m)
		}
		if member == "manifest" {
			continue // an image may be known by its configuration only
		}
		refused(t, "null "+member, data)
	}
}

func TestWeaknessOpenCopyDataExactVersion(t *testing.T) {
	// A file of the schema before this one is read, and written as this one.
	TestPreviousSchemaMigrates(t)
}

func TestWeaknessSaveLastWriterWins(t *testing.T) {
	one, dir := saved(t, origin(t, convert.OCI))
	two := load(t, dir)
	edit := func(c *copydata.CopyData, v string) error {
		return errors.Join(c.Update(func(s *copydata.Settings) error { s.CreatedBy = v; return nil }), c.Save(dir))
	}
	if err := edit(one, "one"); err != nil {
		t.Fatal(err)
	}
	if err := edit(two, "two"); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("the second writer: %v", err)
	}
	if got := load(t, dir).CreatedBy(); got != "one" {
		t.Errorf("created-by %q", got)
	}
}
