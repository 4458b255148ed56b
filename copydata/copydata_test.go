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
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

const (
	ctr    = "1111111111111111111111111111111111111111111111111111111111111111"
	other  = "2222222222222222222222222222222222222222222222222222222222222222"
	imgID  = "3333333333333333333333333333333333333333333333333333333333333333"
	diffA  = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	config = `{"architecture": "amd64", "os": "linux", "later": 12345678901234567890123, "created": "2020-01-02T03:04:05.600Z",
 "config": {"Cmd": ["sh"], "Entrypoint": null, "Labels": {"a": "<b>"}, "New": {}}, "comment": "hi",
 "history": [{"created": "2020-01-02T03:04:05.600Z", "created_by": "x", "odd": 1}],
 "rootfs": {"type": "layers", "diff_ids": ["` + diffA + `"]}}`
)

// origin is an image of one layer.
func origin(t testing.TB, f convert.Format) copydata.Origin {
	t.Helper()
	manifest, _, err := convert.Manifest(f, ispec.Descriptor{Digest: digest.FromString(config), Size: int64(len(config))},
		[]convert.Layer{{Digest: digest.FromString("layer"), Size: 5}}, map[string]string{"who": "me"})
	if err != nil {
		t.Fatal(err)
	}
	return copydata.Origin{
		ImageName: "docker.io/library/x:1", ImageID: "sha256:" + imgID, Format: f,
		Manifest: manifest, Config: []byte(config), DiffIDs: []digest.Digest{diffA},
	}
}

// saved makes a state, saves it and loads it again.
func saved(t testing.TB, o copydata.Origin) (*copydata.CopyData, *copydata.Memory) {
	t.Helper()
	c, err := copydata.New(o, ctr, "box")
	if err != nil {
		t.Fatal(err)
	}
	dir := &copydata.Memory{}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	return load(t, dir), dir
}

func load(t testing.TB, dir copydata.Directory) *copydata.CopyData {
	t.Helper()
	c, err := copydata.Load(dir, ctr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func content(t testing.TB, dir copydata.Directory) []byte {
	t.Helper()
	data, err := dir.Read(ctr, copydata.FileName, copydata.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		o := origin(t, f)
		c, dir := saved(t, o)
		for range 3 { // any number of saves
			src := c.Source()
			data, report, err := c.Config().JSON(f)
			if err != nil || string(data) != config || report != nil || c.Config().Edited() {
				t.Errorf("%s: the configuration changed: %v\n%s", f, err, data)
			}
			if !bytes.Equal(src.Manifest, o.Manifest) || string(src.Config) != config || src.Format != f {
				t.Errorf("%s: the source changed", f)
			}
			if c.ContainerID() != ctr || c.Name() != "box" || c.ImageID() != imgID || c.ImageName() != o.ImageName {
				t.Errorf("%+v", c)
			}
			want := map[string]string{"who": "me"}
			if f == convert.DockerV2S2 {
				want = nil
			}
			if d := cmp.Diff(want, c.Annotations()); d != "" {
				t.Error(d)
			}
			if err := c.Save(dir); err != nil {
				t.Fatal(err)
			}
			c = load(t, dir)
		}
		if c.Generation() != 4 {
			t.Errorf("generation %d", c.Generation())
		}
	}
}

func TestScratch(t *testing.T) {
	c, dir := saved(t, copydata.Origin{OS: "linux", Arch: "arm64", Variant: "v8"})
	if c.ImageID() != "" || c.Source().Config != nil || c.Config().OCI().Variant != "v8" || !c.Config().Edited() {
		t.Errorf("%+v", c)
	}
	err := c.Update(func(s *copydata.Settings) error { s.Image.Config.User = "me"; return nil })
	if err != nil || c.Save(dir) != nil || load(t, dir).Config().OCI().Config.User != "me" {
		t.Error(err)
	}
	if c, err := copydata.New(copydata.Origin{}, ctr, ""); err != nil || c.Config().Docker().OS != "linux" || c.Config().Docker().Architecture == "" {
		t.Error(err)
	}
	if _, err := copydata.New(copydata.Origin{OS: "windows"}, ctr, ""); !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
}

func TestUpdate(t *testing.T) {
	c, dir := saved(t, origin(t, convert.OCI))
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	err := c.Update(func(s *copydata.Settings) error {
		s.Image.Config.Env = append(s.Image.Config.Env, "A=1")
		s.Image.Config.Healthcheck = &docker.Healthcheck{Test: []string{"NONE"}}
		s.Image.Created = &now
		s.Annotations["new"] = "1"
		s.CreatedBy, s.Name, s.MountPoint = "by hand", "crate", "/run/x"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	c = load(t, dir)
	data, _, _ := c.Config().JSON(convert.DockerV2S2)
	for _, want := range []string{`"later":12345678901234567890123`, `"odd"`, `"New":{}`, `"Env":["A=1"]`, `"created":"2024-05-06T07:08:09Z"`, `"2020-01-02T03:04:05.600Z"`, `<b>`} {
		if !strings.Contains(strings.ReplaceAll(string(data), `": `, `":`), want) {
			t.Errorf("%s is missing in %s", want, data)
		}
	}
	if c.CreatedBy() != "by hand" || c.Name() != "crate" || c.MountPoint() != "/run/x" || c.Annotations()["new"] != "1" || c.Annotations()["who"] != "me" {
		t.Errorf("%+v", c)
	}
	if string(c.Source().Config) != config {
		t.Error("the source changed")
	}
	// Taking it all back in another process gives the source's bytes again.
	err = c.Update(func(s *copydata.Settings) error {
		s.Image.Config.Env, s.Image.Config.Healthcheck = nil, nil
		then := time.Date(2020, 1, 2, 3, 4, 5, 6e8, time.UTC)
		s.Image.Created = &then
		return nil
	})
	if data, _, _ := c.Config().JSON(convert.OCI); err != nil || string(data) != config || c.Config().Edited() {
		t.Errorf("%v %s", err, data)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	c, _ := saved(t, origin(t, convert.OCI))
	boom := errors.New("boom")
	for name, fn := range map[string]func(*copydata.Settings) error{
		"own error":   func(*copydata.Settings) error { return boom },
		"name":        func(s *copydata.Settings) error { s.Name = "../x"; return nil },
		"mount point": func(s *copydata.Settings) error { s.MountPoint = "x"; return nil },
		"dots":        func(s *copydata.Settings) error { s.MountPoint = "/x/../y"; return nil },
		"newline":     func(s *copydata.Settings) error { s.MountPoint = "/x\ny"; return nil },
		"diff ids":    func(s *copydata.Settings) error { s.Image.RootFS.DiffIDs = nil; return nil },
		"diff id":     func(s *copydata.Settings) error { s.Image.RootFS.DiffIDs[0] = "x"; return nil },
		"annotation":  func(s *copydata.Settings) error { s.Annotations[""] = "x"; return nil },
		"not UTF-8":   func(s *copydata.Settings) error { s.Image.Author = "\xff"; return nil },
		"created by":  func(s *copydata.Settings) error { s.CreatedBy = "\xff"; return nil },
	} {
		before := c.Config()
		err := c.Update(func(s *copydata.Settings) error {
			s.Image.Config.Cmd, s.Annotations["x"], s.CreatedBy = []string{"no"}, "no", "no"
			return fn(s)
		})
		if err == nil || !errors.Is(err, boom) && !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if after := c.Config(); after.Edited() || before.Edited() || c.Annotations()["x"] != "" || c.CreatedBy() != "" {
			t.Errorf("%s: half of it was taken over", name)
		}
	}
}

func TestCopiesAreCopies(t *testing.T) {
	c, _ := saved(t, origin(t, convert.OCI))
	c.Annotations()["who"] = "you"
	c.Source().Config[0] = 'x'
	c.Source().Manifest[0] = 'x'
	c.Config().Docker().RootFS.DiffIDs[0] = "x"
	var kept *copydata.Settings
	if err := c.Update(func(s *copydata.Settings) error { kept = s; return nil }); err != nil {
		t.Fatal(err)
	}
	kept.Annotations["who"] = "you"
	kept.Image.Config.Cmd[0] = "you"
	if c.Annotations()["who"] != "me" || string(c.Source().Config) != config || c.Config().Docker().Config.Cmd[0] != "sh" {
		t.Error("the state changed from outside")
	}
}

func TestStaleSave(t *testing.T) {
	one, dir := saved(t, origin(t, convert.OCI))
	two := load(t, dir)
	set := func(s *copydata.Settings) error { s.CreatedBy += "x"; return nil }
	if err := errors.Join(one.Update(set), one.Save(dir), two.Update(set)); err != nil {
		t.Fatal(err)
	}
	before := content(t, dir)
	if err := two.Save(dir); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("a stale save: %v", err)
	}
	if !bytes.Equal(before, content(t, dir)) {
		t.Error("a stale save wrote")
	}
	if err := one.Save(dir); err != nil {
		t.Error(err)
	}
	fresh, err := copydata.New(copydata.Origin{}, ctr, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Save(dir); !errors.Is(err, kimg.ErrBusy) {
		t.Errorf("a new state over an old one: %v", err)
	}
}

func TestUnknownMembersSurvive(t *testing.T) {
	_, dir := saved(t, origin(t, convert.DockerV2S2))
	data := content(t, dir)
	data = bytes.Replace(data, []byte(`{"type"`), []byte(`{"zz\u0061":[1.0, 1e999],"type"`), 1)
	data = bytes.Replace(data, []byte(`"what":"created"`), []byte(`"what":"created","why":"so"`), 1)
	dir.Put(ctr, copydata.FileName, data)
	c := load(t, dir)
	if err := c.Update(func(s *copydata.Settings) error { s.Image.Author = "z"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"zz\u0061":[1.0, 1e999]`, `"why":"so"`} {
		if !strings.Contains(string(content(t, dir)), want) {
			t.Errorf("%s is lost", want)
		}
	}
	load(t, dir)
}

// The Docker half is the truth, also for members this version does not know.
func TestDockerHalfWins(t *testing.T) {
	_, dir := saved(t, origin(t, convert.OCI))
	data := content(t, dir)
	at := bytes.Index(data, []byte(`"docker":{`)) + len(`"docker":{`)
	data = append(data[:at:at], append([]byte(`"unheard":{"of":1},`), data[at:]...)...)
	dir.Put(ctr, copydata.FileName, data)
	c := load(t, dir)
	got, _, err := c.Config().JSON(convert.OCI)
	if err != nil || !strings.Contains(string(got), `"unheard":{"of":1}`) || !c.Config().Edited() {
		t.Errorf("%v %s", err, got)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := load(t, dir).Config().JSON(convert.OCI); !strings.Contains(string(got), `"unheard":{"of":1}`) {
		t.Errorf("%s", got)
	}
	if string(c.Source().Config) != config {
		t.Error("the source changed")
	}
}

func TestNewRefuses(t *testing.T) {
	good := origin(t, convert.OCI)
	with := func(fn func(*copydata.Origin)) copydata.Origin { o := good; fn(&o); return o }
	for name, bad := range map[string]struct {
		class kimg.Class
		o     copydata.Origin
		id    string
		name  string
	}{
		"container id": {kimg.ErrInvalid, good, "x", "n"},
		"name":         {kimg.ErrInvalid, good, ctr, "-n"},
		"image id":     {kimg.ErrInvalid, with(func(o *copydata.Origin) { o.ImageID = "ab" }), ctr, "n"},
		"no image id":  {kimg.ErrInvalid, with(func(o *copydata.Origin) { o.ImageID = "" }), ctr, "n"},
		"no config":    {kimg.ErrInvalid, with(func(o *copydata.Origin) { o.Config = nil }), ctr, "n"},
		"image name":   {kimg.ErrInvalid, with(func(o *copydata.Origin) { o.ImageName = "a\x1bb" }), ctr, "n"},
		"diff ids":     {kimg.ErrIntegrity, with(func(o *copydata.Origin) { o.DiffIDs = []digest.Digest{digest.FromString("")} }), ctr, "n"},
		"manifest":     {kimg.ErrInvalid, with(func(o *copydata.Origin) { o.Manifest = []byte("{}") }), ctr, "n"},
		"schema 1":     {kimg.ErrInvalid, with(func(o *copydata.Origin) { o.Manifest = []byte(`{"schemaVersion":1,"fsLayers":[],"history":[]}`) }), ctr, "n"},
	} {
		if c, err := copydata.New(bad.o, bad.id, bad.name); kimg.ClassOf(err) != bad.class || c != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileShape(t *testing.T) {
	_, dir := saved(t, origin(t, convert.DockerV2S2))
	var m map[string]json.RawMessage
	if err := json.Unmarshal(content(t, dir), &m); err != nil {
		t.Fatal(err)
	}
	var encoded []byte
	if err := json.Unmarshal(m["config"], &encoded); err != nil || string(encoded) != config {
		t.Errorf("config is not the base64 of the source: %v", err)
	}
	for _, name := range []string{"type", "schema", "generation", "container-id", "container-name", "image", "image-id", "format", "manifest", "docker", "ociv1", "history"} {
		if m[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if got := string(m["history"]); got != `[{"generation":1,"schema":2,"what":"created"}]` {
		t.Error(got)
	}
}
