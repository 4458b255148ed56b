package convert_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

func edit(t testing.TB, c convert.Config, fn func(*docker.Image)) convert.Config {
	t.Helper()
	c, err := c.Edit(func(img *docker.Image) error { fn(img); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each edit must change exactly one place of the source's text.
func TestEditTouchesOnlyItsMember(t *testing.T) {
	const compact = `{"z":1.50,"architecture":"amd64","config":{"Env":["A=\u003c","B"],"User":"","Labels":{"b":"\u0031","a":"2","B":"x"},"x":[ ]},` +
		`"created":"2016-09-23T23:20:45.100+02:00","history":[{"created":"2016-01-01T00:00:00.10Z","n":1},{"empty_layer":true,"created_by":"\u0041"}],` +
		`"os":"linux","rootfs":{"type":"layers","diff_ids":["` + diffA + `"],"y":{}}}`
	when := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, e := range map[string]struct {
		edit     func(*docker.Image)
		old, new string
	}{
		"scalar":        {func(i *docker.Image) { i.Architecture = "arm" }, `"amd64"`, `"arm"`},
		"empty scalar":  {func(i *docker.Image) { i.Config.User = "me" }, `"User":""`, `"User":"me"`},
		"remove":        {func(i *docker.Image) { i.OS = "" }, `"os":"linux",`, ``},
		"add at end":    {func(i *docker.Image) { i.Author = "<x>" }, `"y":{}}}`, `"y":{}},"author":"<x>"}`},
		"append env":    {func(i *docker.Image) { i.Config.Env = append(i.Config.Env, "C") }, `,"B"]`, `,"B","C"]`},
		"prepend env":   {func(i *docker.Image) { i.Config.Env = append([]string{"0"}, i.Config.Env...) }, `["A=`, `["0","A=`},
		"change env":    {func(i *docker.Image) { i.Config.Env[1] = "D" }, `,"B"]`, `,"D"]`},
		"drop env":      {func(i *docker.Image) { i.Config.Env = i.Config.Env[:1] }, `,"B"]`, `]`},
		"change label":  {func(i *docker.Image) { i.Config.Labels["a"] = "3" }, `"a":"2"`, `"a":"3"`},
		"add label":     {func(i *docker.Image) { i.Config.Labels["A"] = "3" }, `"B":"x"`, `"B":"x","A":"3"`},
		"drop label":    {func(i *docker.Image) { delete(i.Config.Labels, "a") }, `"a":"2",`, ``},
		"drop labels":   {func(i *docker.Image) { i.Config.Labels = nil }, `"Labels":{"b":"\u0031","a":"2","B":"x"},`, ``},
		"time":          {func(i *docker.Image) { i.Created = &when }, `"2016-09-23T23:20:45.100+02:00"`, `"2020-01-02T03:04:05.000000006Z"`},
		"no time":       {func(i *docker.Image) { i.Created = nil }, `"created":"2016-09-23T23:20:45.100+02:00",`, ``},
		"zero time":     {func(i *docker.Image) { i.Created = &time.Time{} }, `"created":"2016-09-23T23:20:45.100+02:00",`, ``},
		"history":       {func(i *docker.Image) { i.History[1].Comment = "c" }, `"created_by":"\u0041"}`, `"created_by":"\u0041","comment":"c"}`},
		"stop timeout":  {func(i *docker.Image) { zero := 0; i.Config.StopTimeout = &zero }, `"x":[ ]`, `"x":[ ],"StopTimeout":0`},
		"inside rootfs": {func(i *docker.Image) { i.RootFS.DiffIDs[0] = diffB }, diffA, diffB},
		"no config":     {func(i *docker.Image) { i.Config = nil }, `{"Env":["A=\u003c","B"],"User":"","Labels":{"b":"\u0031","a":"2","B":"x"},"x":[ ]}`, `{"User":"","x":[ ]}`},
	} {
		for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			want := strings.Replace(compact, e.old, e.new, 1)
			if got := text(t, edit(t, parse(t, f, compact), e.edit), convert.DockerV2S2); got != want || want == compact {
				t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
			}
		}
	}
}

// The empty edit, and an edit taken back later, give the source's bytes; so does the same value set again.
func TestEditTakenBack(t *testing.T) {
	for _, source := range []string{dockerConfig, ociConfig} {
		c := parse(t, convert.DockerV2S2, source)
		was := c.Docker()
		c = edit(t, c, func(i *docker.Image) {
			i.History = nil
			i.Config = &docker.Config{Cmd: []string{"x"}, Labels: map[string]string{"n": "m"}}
			i.ContainerConfig = nil
			i.OS, i.Created, i.RootFS.DiffIDs = "windows", nil, nil
		})
		if !c.Edited() {
			t.Error("not edited")
		}
		c, err := c.AddLayer(diffC, docker.History{CreatedBy: "y"})
		if err != nil {
			t.Fatal(err)
		}
		c = edit(t, c, func(i *docker.Image) { *i = was })
		if text(t, c, convert.DockerV2S2) != source || c.Edited() {
			t.Errorf("taken back, but not the source:\n%s", text(t, c, convert.DockerV2S2))
		}
	}
}

func TestEditKeepsUnknownMembers(t *testing.T) {
	c := edit(t, parse(t, convert.DockerV2S2, dockerConfig), func(i *docker.Image) {
		i.Config = &docker.Config{User: "x"}
		i.ContainerConfig.Cmd = []string{"a", "b"}
		i.Author, i.Created = "", nil
	})
	got := text(t, c, convert.OCI)
	for _, want := range []string{`"future": {"n": 123456789012345678901234567890, "list": [1, 2.50, {"a": null}]}`, `"Gpus":[{"id": 1e400}]`,
		`"Unheard":"of"`, `"note": 7`, `"extra": true`, `9223372036854775807`} {
		if !strings.Contains(strings.ReplaceAll(got, `": `, `":`), strings.ReplaceAll(want, `": `, `":`)) {
			t.Errorf("%s is lost:\n%s", want, got)
		}
	}
}

func TestConfigIsAValue(t *testing.T) {
	source := []byte(dockerConfig)
	c, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: source}, nil)
	if err != nil {
		t.Fatal(err)
	}
	source[0] = 'x'
	img := c.Docker()
	img.Config.Labels["a"], img.RootFS.DiffIDs[0], img.History[0].CreatedBy = "x", "x", "x"
	data, _, err := c.JSON(convert.DockerV2S2)
	if err != nil {
		t.Fatal(err)
	}
	data[0] = 'x'
	c.Source()[0] = 'x'
	edit(t, c, func(i *docker.Image) { i.Config.Labels["a"] = "y"; i.Config.Env[0] = "z" })
	if text(t, c, convert.DockerV2S2) != dockerConfig {
		t.Error("the configuration changed from outside")
	}
}

func TestEditRefuses(t *testing.T) {
	boom := errors.New("boom")
	late := time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC)
	for word, fn := range map[string]func(*docker.Image) error{
		"boom":         func(*docker.Image) error { return boom },
		"rootfs-type:": func(i *docker.Image) error { i.RootFS.Type = ""; return nil },
		"digest:":      func(i *docker.Image) error { i.RootFS.DiffIDs[0] = "sha256:x"; return nil },
		"count:":       func(i *docker.Image) error { i.RootFS.DiffIDs = i.RootFS.DiffIDs[:1]; return nil },
		"json:":        func(i *docker.Image) error { i.Config.Labels["\xff"] = "x"; return nil },
		"timestamp:":   func(i *docker.Image) error { i.Created = &late; return nil },
		"too-big:":     func(i *docker.Image) error { i.Author = strings.Repeat("x", 4<<20); return nil },
	} {
		c := parse(t, convert.DockerV2S2, dockerConfig)
		after, err := c.Edit(fn)
		if err == nil || !strings.Contains(err.Error(), word) || errors.Is(err, kimg.ErrInternal) {
			t.Errorf("%s: %v", word, err)
		}
		if _, _, err := after.JSON(convert.OCI); err == nil {
			t.Errorf("%s: a configuration came out", word)
		}
	}
}

func TestAddLayer(t *testing.T) {
	when := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	c := parse(t, convert.DockerV2S2, dockerConfig)
	more, err := c.AddLayer(diffC, docker.History{Created: &when, CreatedBy: "kimg", EmptyLayer: true})
	if err != nil {
		t.Fatal(err)
	}
	img := more.OCI()
	if n := len(img.RootFS.DiffIDs); n != 3 || img.RootFS.DiffIDs[2] != diffC || len(img.History) != 4 || img.History[3].EmptyLayer || !img.History[3].Created.Equal(when) {
		t.Errorf("%+v", img)
	}
	for _, kept := range []string{`"2016-09-23T18:08:50.500000000Z"`, `"note": 7`, `"RUN \u0026"`} {
		if !strings.Contains(text(t, more, convert.OCI), kept) {
			t.Errorf("%s is lost", kept)
		}
	}
	empty, err := more.AddEmpty(docker.History{Comment: "said"})
	if img := empty.OCI(); err != nil || len(img.History) != 5 || !img.History[4].EmptyLayer || len(img.RootFS.DiffIDs) != 3 {
		t.Errorf("%v %+v", err, img)
	}
	if len(c.Docker().History) != 3 {
		t.Error("the first configuration changed")
	}
	if _, err := c.AddLayer("x", docker.History{}); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
}

// OCI images may have layers and no history.
func TestAddLayerWithoutHistory(t *testing.T) {
	c, err := parse(t, convert.OCI, ociConfig).AddLayer(diffB, docker.History{CreatedBy: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, c, convert.OCI); !strings.Contains(got, `"history":[{},{"created_by":"x"}]`) {
		t.Error(got)
	}
	c, err = convert.NewConfig("linux", "amd64", "").AddLayer(diffA, docker.History{})
	if err != nil || len(c.OCI().RootFS.DiffIDs) != 1 || len(c.OCI().History) != 1 {
		t.Error(err)
	}
}

func TestLayerLimit(t *testing.T) {
	c := edit(t, convert.NewConfig("linux", "amd64", ""), func(i *docker.Image) {
		for range convert.MaxLayers {
			i.RootFS.DiffIDs = append(i.RootFS.DiffIDs, digest.Digest(diffA))
		}
	})
	if _, err := c.AddLayer(diffA, docker.History{}); !errors.Is(err, kimg.ErrLimit) {
		t.Error(err)
	}
}

func TestWithDocker(t *testing.T) {
	c := parse(t, convert.OCI, dockerConfig)
	spaced := meaning(t, dockerConfig) // other spacing, order and escapes, the same meaning
	same, err := c.WithDocker([]byte(spaced))
	if err != nil || same.Edited() || text(t, same, convert.OCI) != dockerConfig {
		t.Errorf("the same document is an edit: %v", err)
	}
	edited := edit(t, c, func(i *docker.Image) { i.Author = "new" })
	again, err := c.WithDocker([]byte(text(t, edited, convert.DockerV2S2)))
	if err != nil || text(t, again, convert.OCI) != text(t, edited, convert.OCI) {
		t.Error(err)
	}
	other := strings.Replace(dockerConfig, `"n": 1234`, `"n": 9234`, 1)
	wins, err := c.WithDocker([]byte(other))
	if err != nil || text(t, wins, convert.OCI) != other || !wins.Edited() || string(wins.Source()) != dockerConfig {
		t.Errorf("the document did not win: %v", err)
	}
	if text(t, edit(t, wins, func(*docker.Image) {}), convert.OCI) != other {
		t.Error("an edit that changes nothing went back to the source")
	}
	odd, err := convert.Config{}.WithDocker([]byte(`{"OS":"x","architecture":"y","rootfs":{"type":"layers","diff_ids":[]}}`))
	if err != nil || text(t, odd, convert.OCI) != `{"os":"x","architecture":"y","rootfs":{"type":"layers","diff_ids":[]}}` {
		t.Errorf("%v %s", err, text(t, odd, convert.OCI))
	}
	if _, err := c.WithDocker([]byte("null")); !errors.Is(err, kimg.ErrInvalid) {
		t.Error(err)
	}
}
