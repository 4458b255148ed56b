package edit_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/copydata/edit"
)

// start are settings that hold something already.
func start() copydata.Settings {
	return copydata.Settings{
		Annotations: map[string]string{"old": "1"},
		Image: docker.Image{
			OS: "linux", Architecture: "amd64", OSFeatures: []string{"one"},
			Config: &docker.Config{
				Env: []string{"PATH=/bin", "OLD=1"}, Labels: map[string]string{"old": "1"}, WorkingDir: "/w",
				ExposedPorts: map[string]struct{}{"1/tcp": {}}, Volumes: map[string]struct{}{"/old": {}}, OnBuild: []string{"RUN x"},
				Cmd: docker.Strings{"old"}, Healthcheck: &docker.Healthcheck{Test: []string{"NONE"}, Retries: 7},
			},
		},
	}
}

type changes = func(s *copydata.Settings, c *docker.Config)

func expect(t *testing.T, what string, edits edit.List, want changes) {
	t.Helper()
	if err := edits.Check(); err != nil {
		t.Errorf("%s: Check: %v", what, err)
	}
	wanted := start()
	want(&wanted, wanted.Image.Config)
	got := start()
	if err := edits.Apply(&got); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if d := cmp.Diff(wanted, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
	if err := got.Check(start()); err != nil {
		t.Errorf("%s: the outcome: %v", what, err)
	}
	// Settings without anything take every edit too, and an image does.
	if err := edits.Apply(&copydata.Settings{}); err != nil {
		t.Errorf("%s: on nothing: %v", what, err)
	}
	img := start().Image
	if err := edits.ApplyTo(&img); err != nil || cmp.Diff(wanted.Image, img) != "" {
		t.Errorf("%s: on an image: %v %s", what, err, cmp.Diff(wanted.Image, img))
	}
}

// What each instruction does is what docker commit --change does.
func TestInstructions(t *testing.T) {
	for text, want := range map[string]changes{
		`ENV A=1 B="x y" OLD=2`:      func(_ *copydata.Settings, c *docker.Config) { c.Env = []string{"PATH=/bin", "OLD=2", "A=1", "B=x y"} },
		`ENV A b  "c"`:               func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=b  c") },
		`env PATH=$PATH:/x`:          func(_ *copydata.Settings, c *docker.Config) { c.Env[0] = "PATH=/bin:/x" },
		`ENV A=1 B=$A-${OLD}`:        func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=1", "B=-1") },
		`ENV A='$OLD' B=\$OLD`:       func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=$OLD", "B=$OLD") },
		`ENV A=a\ b C="d\"e\f"`:      func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=a b", `C=d"e\f`) },
		`ENV A=${X:-n}${OLD:+y}${X}`: func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=ny") },
		"ENV A=1 \\\n# no\n B=2":     func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=1", "B=2") },
		"USER a\nUSER b":             func(_ *copydata.Settings, c *docker.Config) { c.User = "b" },
		`label a=1 "b c"="d"`:        func(_ *copydata.Settings, c *docker.Config) { c.Labels["a"], c.Labels["b c"] = "1", "d" },
		`CMD ["a", "b"]`:             func(_ *copydata.Settings, c *docker.Config) { c.Cmd = docker.Strings{"a", "b"} },
		`CMD a  "b`:                  func(_ *copydata.Settings, c *docker.Config) { c.Cmd = docker.Strings{"/bin/sh", "-c", `a  "b`} },
		`CMD [a]`:                    func(_ *copydata.Settings, c *docker.Config) { c.Cmd = docker.Strings{"/bin/sh", "-c", `[a]`} },
		`CMD=["a"]`:                  func(_ *copydata.Settings, c *docker.Config) { c.Cmd = docker.Strings{"a"} },
		`ENTRYPOINT ["a"]`:           func(_ *copydata.Settings, c *docker.Config) { c.Entrypoint, c.Cmd = docker.Strings{"a"}, nil },
		"CMD [\"b\"]\nENTRYPOINT a": func(_ *copydata.Settings, c *docker.Config) {
			c.Entrypoint, c.Cmd = docker.Strings{"/bin/sh", "-c", "a"}, docker.Strings{"b"}
		},
		"SHELL [\"bash\", \"-c\"]\nCMD a": func(_ *copydata.Settings, c *docker.Config) {
			c.Shell, c.Cmd = docker.Strings{"bash", "-c"}, docker.Strings{"bash", "-c", "a"}
		},
		`EXPOSE 80 53/UDP`: func(_ *copydata.Settings, c *docker.Config) {
			c.ExposedPorts["80/tcp"], c.ExposedPorts["53/udp"] = struct{}{}, struct{}{}
		},
		`EXPOSE $OLD`: func(_ *copydata.Settings, c *docker.Config) { c.ExposedPorts["1/tcp"] = struct{}{} },
		`VOLUME /a /b`: func(_ *copydata.Settings, c *docker.Config) {
			c.Volumes["/a"], c.Volumes["/b"] = struct{}{}, struct{}{}
		},
		`VOLUME ["/a b"]`:     func(_ *copydata.Settings, c *docker.Config) { c.Volumes["/a b"] = struct{}{} },
		`USER "a":b`:          func(_ *copydata.Settings, c *docker.Config) { c.User = "a:b" },
		`WORKDIR ../x`:        func(_ *copydata.Settings, c *docker.Config) { c.WorkingDir = "/x" },
		`WORKDIR "/a b/"`:     func(_ *copydata.Settings, c *docker.Config) { c.WorkingDir = "/a b" },
		`STOPSIGNAL SIGRTMIN`: func(_ *copydata.Settings, c *docker.Config) { c.StopSignal = "SIGRTMIN" },
		`ONBUILD RUN cat -`:   func(_ *copydata.Settings, c *docker.Config) { c.OnBuild = []string{"RUN x", "RUN cat -"} },
		`MAINTAINER me`:       func(s *copydata.Settings, _ *docker.Config) { s.Image.Author = "me" },
		`HEALTHCHECK none`: func(_ *copydata.Settings, c *docker.Config) {
			c.Healthcheck = &docker.Healthcheck{Test: []string{"NONE"}}
		},
		`HEALTHCHECK --interval=5s --timeout=1s --start-period=2s --start-interval=1m --retries=3 CMD ["a", "b"]`: func(_ *copydata.Settings, c *docker.Config) {
			c.Healthcheck = &docker.Healthcheck{
				Test: []string{"CMD", "a", "b"}, Interval: 5 * time.Second, Timeout: time.Second, StartPeriod: 2 * time.Second, StartInterval: time.Minute, Retries: 3,
			}
		},
		`HEALTHCHECK CMD a "b c"`: func(_ *copydata.Settings, c *docker.Config) {
			c.Healthcheck = &docker.Healthcheck{Test: []string{"CMD-SHELL", `a "b c"`}}
		},
	} {
		edits, err := edit.Instructions(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		expect(t, text, edits, want)
	}
	for _, text := range []string{
		"", " ", "#", "CMD", "RUN x", "FROM x", "ENV A", "ENV =x", "ENV A=1 B", `ENV A="1`, `ENV A='1`, "ENV A=${B", "ENV A=${}", "ENV A=${B?x}", "ENV A=${B:}",
		"LABEL \"a", "EXPOSE x", "EXPOSE 0", "VOLUME rel", `VOLUME [1]`, `CMD ["a", 1]`, "SHELL bash", "SHELL [a]", "STOPSIGNAL SIGNO", "USER a:b:c", "ONBUILD FROM x",
		"ONBUILD RUN", "HEALTHCHECK x", "HEALTHCHECK CMD", "HEALTHCHECK NONE x", "HEALTHCHECK --interval=5s NONE", "HEALTHCHECK --interval=1us CMD x",
		"HEALTHCHECK --interval= CMD x", "HEALTHCHECK --nosuch=1 CMD x", "HEALTHCHECK --retries=-1 CMD x", "HEALTHCHECK --retries=1 --retries=2 CMD x",
	} {
		edits, err := edit.Instructions(text)
		if err == nil {
			err = edits.Check()
		}
		if !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Docker's own words for Windows.
func TestShellOfWindows(t *testing.T) {
	edits, err := edit.Instructions("CMD dir", `WORKDIR C:\\app`)
	if err != nil {
		t.Fatal(err)
	}
	img := docker.Image{OS: "windows", Architecture: "amd64"}
	if err := edits.ApplyTo(&img); err != nil || cmp.Diff(docker.Config{Cmd: docker.Strings{"cmd", "/S", "/C", "dir"}, WorkingDir: `C:\app`}, *img.Config) != "" {
		t.Errorf("%v %+v", err, *img.Config) // a backslash escapes, as in a Dockerfile without another escape character
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		want   changes
	}{
		{"cmd", []string{`a "b c"`}, func(_ *copydata.Settings, c *docker.Config) { c.Cmd = docker.Strings{"a", "b c"} }},
		{"cmd", []string{`["a"]`, `["b"]`}, func(_ *copydata.Settings, c *docker.Config) { c.Cmd = docker.Strings{"b"} }},
		{"cmd", []string{""}, func(_ *copydata.Settings, c *docker.Config) { c.Cmd = nil }},
		{"entrypoint", []string{"a b"}, func(_ *copydata.Settings, c *docker.Config) { c.Entrypoint = docker.Strings{"/bin/sh", "-c", "a b"} }},
		{"env", []string{"A=1", "OLD-"}, func(_ *copydata.Settings, c *docker.Config) { c.Env = []string{"PATH=/bin", "A=1"} }},
		{"env", []string{"A=$OLD$$x${PATH}$NO"}, func(_ *copydata.Settings, c *docker.Config) { c.Env = append(c.Env, "A=1$x/bin") }},
		{"env", []string{"-", "N=1"}, func(_ *copydata.Settings, c *docker.Config) { c.Env = []string{"N=1"} }},
		{"unsetenv", []string{"OLD", "NO"}, func(_ *copydata.Settings, c *docker.Config) { c.Env = []string{"PATH=/bin"} }},
		{"label", []string{"-"}, func(_ *copydata.Settings, c *docker.Config) { c.Labels = map[string]string{} }},
		{"label", []string{"a=b-"}, func(_ *copydata.Settings, c *docker.Config) { c.Labels["a"] = "b-" }},
		{"unsetlabel", []string{"old"}, func(_ *copydata.Settings, c *docker.Config) { c.Labels = map[string]string{} }},
		{"port", []string{"1-", "2", "7-9/udp"}, func(_ *copydata.Settings, c *docker.Config) {
			c.ExposedPorts = map[string]struct{}{"2/tcp": {}, "7-9/udp": {}}
		}},
		{"volume", []string{"/old-", "/new"}, func(_ *copydata.Settings, c *docker.Config) { c.Volumes = map[string]struct{}{"/new": {}} }},
		{"user", []string{"1:2"}, func(_ *copydata.Settings, c *docker.Config) { c.User = "1:2" }},
		{"workingdir", []string{"x"}, func(_ *copydata.Settings, c *docker.Config) { c.WorkingDir = "/w/x" }},
		{"workingdir", []string{""}, func(_ *copydata.Settings, c *docker.Config) { c.WorkingDir = "" }},
		{"stop-signal", []string{"9"}, func(_ *copydata.Settings, c *docker.Config) { c.StopSignal = "9" }},
		{"stop-timeout", []string{"0"}, func(_ *copydata.Settings, c *docker.Config) { c.StopTimeout = new(int) }},
		{"stop-timeout", []string{""}, func(_ *copydata.Settings, c *docker.Config) { c.StopTimeout = nil }},
		{"shell", []string{"a -c"}, func(_ *copydata.Settings, c *docker.Config) { c.Shell = docker.Strings{"a", "-c"} }},
		{"onbuild", []string{"-", "RUN y -"}, func(_ *copydata.Settings, c *docker.Config) { c.OnBuild = []string{"RUN y -"} }},
		{"healthcheck", []string{"CMD a 'b c'"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Test = []string{"CMD", "a", "b c"} }},
		{"healthcheck", []string{`["a"]`}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Test = []string{"CMD", "a"} }},
		{"healthcheck", []string{`["CMD-SHELL", "a"]`}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Test = []string{"CMD-SHELL", "a"} }},
		{"healthcheck", []string{"CMD-SHELL a || b"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Test = []string{"CMD-SHELL", "a || b"} }},
		{"healthcheck", []string{"a || b"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Test = []string{"CMD-SHELL", "a || b"} }},
		{"healthcheck", []string{""}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck = nil }},
		{"healthcheck-interval", []string{"1m"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Interval = time.Minute }},
		{"healthcheck-timeout", []string{"1s"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Timeout = time.Second }},
		{"healthcheck-start-period", []string{"1s"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.StartPeriod = time.Second }},
		{"healthcheck-start-interval", []string{"1s"}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.StartInterval = time.Second }},
		{"healthcheck-retries", []string{""}, func(_ *copydata.Settings, c *docker.Config) { c.Healthcheck.Retries = 0 }},
		{"hostname", []string{"h"}, func(_ *copydata.Settings, c *docker.Config) { c.Hostname = "h" }},
		{"domainname", []string{"d.e"}, func(_ *copydata.Settings, c *docker.Config) { c.Domainname = "d.e" }},
		{"author", []string{"a"}, func(s *copydata.Settings, _ *docker.Config) { s.Image.Author = "a" }},
		{"comment", []string{"c"}, func(s *copydata.Settings, _ *docker.Config) { s.Image.Comment = "c" }},
		{"os", []string{"windows"}, func(s *copydata.Settings, _ *docker.Config) { s.Image.OS = "windows" }},
		{"arch", []string{"arm64"}, func(s *copydata.Settings, _ *docker.Config) { s.Image.Architecture = "arm64" }},
		{"os-version", []string{"10.0"}, func(s *copydata.Settings, _ *docker.Config) { s.Image.OSVersion = "10.0" }},
		{"os-feature", []string{"one-", "two"}, func(s *copydata.Settings, _ *docker.Config) { s.Image.OSFeatures = []string{"two"} }},
	} {
		e, err := edit.Set(c.name, c.values...)
		if err != nil {
			t.Errorf("%s %q: %v", c.name, c.values, err)
			continue
		}
		expect(t, c.name+" "+strings.Join(c.values, " "), edit.List{e}, c.want)
	}
	for name, values := range map[string][]string{
		"nosuch": {"x"}, "env": {"A"}, "label": {"=x"}, "unsetenv": {""}, "cmd": {`"a`}, "shell": {`'a`}, "stop-timeout": {"x"},
		"healthcheck": {`[1]`}, "healthcheck-interval": {"x"}, "healthcheck-retries": {"x"}, "port": nil,
	} {
		if _, err := edit.Set(name, values...); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s %q: %v", name, values, err)
		}
	}
}

// Every setting has a note when a Dockerfile has an instruction for it; the history gets one entry for each.
func TestRecord(t *testing.T) {
	var edits edit.List
	for name, value := range map[string]string{"user": "u", "hostname": "h"} {
		e, err := edit.Set(name, value)
		if err != nil {
			t.Fatal(err)
		}
		edits = append(edits, e)
	}
	at := time.Unix(1, 0).UTC()
	for createdBy, want := range map[string]string{"": "/bin/sh -c #(nop) USER u", "me": "me"} {
		s := start()
		s.Image.RootFS.DiffIDs = append(s.Image.RootFS.DiffIDs, "sha256:x")
		if err := append(edits, edits.Record(at, createdBy)).Apply(&s); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]docker.History{{}, {Created: &at, CreatedBy: want, EmptyLayer: true}}, s.Image.History); d != "" {
			t.Error(d)
		}
	}
}

func TestFile(t *testing.T) {
	e, err := edit.File([]byte(`{"User":"u","Env":["OLD=2","N=$x"],"Labels":{"new":"2"},"Volumes":null,"Cmd":["a"],"WorkingDir":null,"Healthcheck":{"Interval":1000000000}}`))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "file", edit.List{e}, func(_ *copydata.Settings, c *docker.Config) {
		c.User, c.Env, c.Volumes, c.Cmd, c.WorkingDir = "u", []string{"PATH=/bin", "OLD=2", "N=$x"}, nil, docker.Strings{"a"}, ""
		c.Labels["new"], c.Healthcheck.Interval = "2", time.Second
	})
	for _, text := range []string{"", "[]", "null", `{"User":1}`, `{"Nosuch":1}`, `{"user":"x"}`, `{"User":"a","User":"b"}`, `{} {}`, `{"Healthcheck":{"X":1}}`, `{"config":{}}`} {
		if _, err := edit.File([]byte(text)); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if e, err := edit.File([]byte(`{"Env":["A"]}`)); err != nil || edit.List.Apply(edit.List{e}, &copydata.Settings{}) == nil {
		t.Error("a variable without a value", err)
	}
	if _, err := edit.File(make([]byte, 5<<20)); !errors.Is(err, kimg.ErrLimit) {
		t.Error(err)
	}
}

// Every member that can be cleared is cleared, by whatever spelling.
func TestClear(t *testing.T) {
	full := copydata.Settings{Annotations: map[string]string{"a": "b"}, CreatedBy: "x", HistoryComment: "x"}
	text := `{"created":"2020-01-01T00:00:00Z","author":"x","variant":"x","os.version":"x","os.features":["x"],"history":[{"comment":"x"}],"parent":"x",` +
		`"comment":"x","container":"x","container_config":{"User":"x"},"docker_version":"x","config":{"Labels":{"a":"b"},"Env":["A=b"],"Memory":1,"Tty":true}}`
	if err := json.Unmarshal([]byte(text), &full.Image); err != nil {
		t.Fatal(err)
	}
	var all edit.List
	seen := map[string]bool{}
	for _, name := range edit.Clearable() {
		for _, spelling := range []string{name, strings.ToUpper(name), strings.NewReplacer(".", "-", "_", "-").Replace(name)} {
			e, err := edit.Clear(spelling)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		seen[name] = true
	}
	if err := all.Apply(&full); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(copydata.Settings{Annotations: map[string]string{}, Image: docker.Image{Config: &docker.Config{}}}, full); d != "" {
		t.Error(d)
	}
	for _, flag := range []string{"env", "label", "port", "volume", "os-version", "os-feature", "stop-signal", "workingdir", "healthcheck", "cmd"} {
		if _, err := edit.Clear(flag); err != nil {
			t.Errorf("the name of a flag: %v", err)
		}
	}
	for _, name := range []string{"", "nosuch", "rootfs", "os", "architecture", "config"} {
		if _, err := edit.Clear(name); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d: %v", len(seen), maps.Keys(seen))
	}
}
