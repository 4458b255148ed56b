package copydata_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// Each member that an edit can bring in, with values that are right and values that are wrong.
func TestEditsAreValidated(t *testing.T) {
	one := func(set func(*docker.Config, string)) func(*copydata.Settings, string) {
		return func(s *copydata.Settings, v string) { set(s.Image.Config, v) }
	}
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		member       string
		set          func(*copydata.Settings, string)
		right, wrong []string
	}{
		{"os", func(s *copydata.Settings, v string) { s.Image.OS = v }, []string{"linux", "windows", "freebsd"}, []string{"Linux", "linus", "macos", " "}},
		{"architecture", func(s *copydata.Settings, v string) { s.Image.Architecture = v }, []string{"amd64", "arm64", "riscv64", "386"}, []string{"x86_64", "aarch64", "AMD64", "armhf"}},
		{"variant", func(s *copydata.Settings, v string) { s.Image.Variant = v }, []string{"v1", "v4", ""}, []string{"v5", "v8", "1"}},
		{"variant", func(s *copydata.Settings, v string) { s.Image.Architecture, s.Image.Variant = "arm", v }, []string{"v5", "v7", ""}, []string{"v4", "7", "armv7"}},
		{"variant", func(s *copydata.Settings, v string) { s.Image.Architecture, s.Image.Variant = "arm64", v }, []string{"v8", "v9", "v8.2"}, []string{"v7", "v8.", "v8.x", "v8.2.1"}},
		{"variant", func(s *copydata.Settings, v string) { s.Image.Architecture, s.Image.Variant = "riscv64", v }, []string{"rva22u64"}, []string{"a b"}},
		{"os.version", func(s *copydata.Settings, v string) { s.Image.OSVersion = v }, []string{"10.0.17763"}, []string{"a b", "a\n"}},
		{"os.features", func(s *copydata.Settings, v string) { s.Image.OSFeatures = []string{v} }, []string{"win32k"}, []string{"", "a b"}},
		{"author", func(s *copydata.Settings, v string) { s.Image.Author = v }, []string{"Ä <a@b>"}, []string{"a\x00"}},
		{"comment", func(s *copydata.Settings, v string) { s.Image.Comment = v }, []string{"two\nlines"}, []string{"a\x00"}},
		{"config.User", one(func(c *docker.Config, v string) { c.User = v }), []string{"a", "0", "1000:1000", "a:b", "4294967294", `ContainerAdministrator`}, []string{":", "a:", ":b", "a:b:c", "a b", "4294967295", "a\n"}},
		{"config.ExposedPorts", one(func(c *docker.Config, v string) { c.ExposedPorts = map[string]struct{}{v: {}} }), []string{"80", "80/tcp", "1-65535/sctp", "53/udp"},
			[]string{"", "0", "65536", "99999999999999999999", "a", "80/", "80/icmp", "80/TCP", "9-8", "-1", "1-", "8 0", "1-2-3", "+1"}},
		{"config.Env", one(func(c *docker.Config, v string) { c.Env = []string{v} }), []string{"A=", "A=b=c", "a.b-c=1", "A=two\nlines"}, []string{"", "A", "=b", "A B=c", "A\t=c", "A=b\x00"}},
		{"config.Entrypoint", one(func(c *docker.Config, v string) { c.Entrypoint = docker.Strings{v} }), []string{"", "a b"}, []string{"\x00"}},
		{"config.Cmd", one(func(c *docker.Config, v string) { c.Cmd = docker.Strings{v} }), []string{"", "a b"}, []string{"\x00"}},
		{"config.Shell", one(func(c *docker.Config, v string) { c.Shell = docker.Strings{v} }), []string{"a"}, []string{"\x00"}},
		{"config.Volumes", one(func(c *docker.Config, v string) { c.Volumes = map[string]struct{}{v: {}} }), []string{"/", "/a b", "/a/../b"}, []string{"", "a", "./a", `C:\a`, "/a\n"}},
		{"config.Volumes", func(s *copydata.Settings, v string) {
			s.Image.OS, s.Image.Config.Volumes = "windows", map[string]struct{}{v: {}}
		}, []string{`C:\a`, "d:/a", `\a`, "/a"}, []string{"a", "C:", "C:a"}},
		{"config.WorkingDir", one(func(c *docker.Config, v string) { c.WorkingDir = v }), []string{"/", "/a", ""}, []string{"a", ".."}},
		{"config.Labels", one(func(c *docker.Config, v string) { c.Labels = map[string]string{v: ""} }), []string{"a", "org.example/x", "a b"}, []string{"", " a", "a\n", "a\x7f"}},
		{"config.StopSignal", one(func(c *docker.Config, v string) { c.StopSignal = v }), []string{"TERM", "SIGTERM", "sigterm", "9", "64", "RTMIN", "SIGRTMIN+15", "RTMAX-1", ""},
			[]string{"NO", "SIG", "0", "65", "-1", "RTMIN+16", "RTMIN+0", "RTMIN-1", "RTMAX+1", "TERM "}},
		{"config.OnBuild", one(func(c *docker.Config, v string) { c.OnBuild = []string{v} }), []string{"RUN x", "run x", "COPY a b"}, []string{"", "RUN", "FROM x", "ONBUILD RUN x", "MAINTAINER x", "nonsense x", "RUN \x00"}},
		{"config.Hostname", one(func(c *docker.Config, v string) { c.Hostname = v }), []string{"a", "a-b.c_d"}, []string{"-a", "a.", "a b", "ä", long}},
		{"config.Domainname", one(func(c *docker.Config, v string) { c.Domainname = v }), []string{"example.org"}, []string{"a/b"}},
		{"config.MacAddress", one(func(c *docker.Config, v string) { c.MacAddress = v }), []string{"02:42:ac:11:00:02"}, []string{"02:42", long}},
		{"annotations", func(s *copydata.Settings, v string) { s.Annotations = map[string]string{v: ""} }, []string{"a.b"}, []string{"", "a\n"}},
		{"layer-annotations", func(s *copydata.Settings, v string) { s.LayerAnnotations = map[string]string{v: ""} }, []string{"a.b"}, []string{""}},
		{"config.Healthcheck.Test", one(func(c *docker.Config, v string) { c.Healthcheck = &docker.Healthcheck{Test: strings.Split(v, " ")} }),
			[]string{"NONE", "CMD a b", "CMD-SHELL a"}, []string{"", "NONE a", "CMD", "CMD-SHELL", "curl x"}},
	} {
		for _, value := range append(c.right, c.wrong...) {
			state := newState(t)
			before := state.Config()
			err := state.Update(func(s *copydata.Settings) error { c.set(s, value); return nil })
			if slices.Contains(c.right, value) {
				if err != nil {
					t.Errorf("%s %q: %v", c.member, value, err)
				}
				continue
			}
			var e *kimg.Error
			if !errors.Is(err, kimg.ErrInvalid) || !errors.As(err, &e) || !strings.Contains(err.Error(), ": "+c.member+": ") {
				t.Errorf("%s %q: %v", c.member, value, err)
			}
			if line := kimg.Line(err); len(line) > 800 {
				t.Errorf("%s: %d bytes of error", c.member, len(line))
			}
			if string(before.Source()) != string(state.Config().Source()) || state.Config().Edited() {
				t.Errorf("%s %q changed the state", c.member, value)
			}
		}
	}
}

func TestNumbersAreValidated(t *testing.T) {
	minute, infinite, less := 60, -1, -2
	for want, change := range map[string]func(c *docker.Config){
		"":                                 func(c *docker.Config) { c.StopTimeout = &minute },
		" ":                                func(c *docker.Config) { c.StopTimeout = &infinite },
		"config.StopTimeout":               func(c *docker.Config) { c.StopTimeout = &less },
		"  ":                               func(c *docker.Config) { c.Healthcheck = &docker.Healthcheck{Interval: time.Millisecond, Retries: 1} },
		"config.Healthcheck.Interval":      func(c *docker.Config) { c.Healthcheck = &docker.Healthcheck{Interval: 1} },
		"config.Healthcheck.Timeout":       func(c *docker.Config) { c.Healthcheck = &docker.Healthcheck{Timeout: -1} },
		"config.Healthcheck.StartPeriod":   func(c *docker.Config) { c.Healthcheck = &docker.Healthcheck{StartPeriod: math.MinInt64} },
		"config.Healthcheck.StartInterval": func(c *docker.Config) { c.Healthcheck = &docker.Healthcheck{StartInterval: 999} },
		"config.Healthcheck.Retries":       func(c *docker.Config) { c.Healthcheck = &docker.Healthcheck{Retries: -1} },
	} {
		err := newState(t).Update(func(s *copydata.Settings) error { change(s.Image.Config); return nil })
		if want = strings.TrimSpace(want); want == "" && err != nil || want != "" && (!errors.Is(err, kimg.ErrInvalid) || !strings.Contains(err.Error(), want+": ")) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// What an image came with is never refused, whatever is edited beside it, and may be removed.
func TestWhatAnImageHasIsNotRefused(t *testing.T) {
	odd := copydata.Settings{Image: docker.Image{
		OS: "plan10", Architecture: "vax", Variant: "11 780", OSFeatures: []string{""}, Config: &docker.Config{
			User: "a:b:c", Env: []string{"NOVALUE", "=x"}, ExposedPorts: map[string]struct{}{"x": {}}, Volumes: map[string]struct{}{"rel": {}},
			Labels: map[string]string{"": ""}, StopSignal: "NO", WorkingDir: "rel", Hostname: "a b", OnBuild: []string{"x"},
			Healthcheck: &docker.Healthcheck{Test: []string{"curl"}, Interval: 1},
		},
	}}
	if err := odd.Check(odd); err != nil {
		t.Error(err)
	}
	edited := odd
	c := *odd.Image.Config
	c.Env, c.User, c.ExposedPorts = append([]string{"NEW=1"}, c.Env...), "new", map[string]struct{}{"x": {}, "80/tcp": {}}
	edited.Image.Config = &c
	if err := edited.Check(odd); err != nil {
		t.Error(err)
	}
	empty := copydata.Settings{Image: docker.Image{OS: odd.Image.OS, Architecture: odd.Image.Architecture}}
	if err := empty.Check(odd); err != nil {
		t.Error(err)
	}
	for _, member := range []string{"os", "architecture"} {
		img := odd.Image
		if member == "os" {
			img.OS = ""
		} else {
			img.Architecture = ""
		}
		if err := (copydata.Settings{Image: img}).Check(odd); !errors.Is(err, kimg.ErrInvalid) || !strings.HasPrefix(err.Error(), member) {
			t.Errorf("%s: %v", member, err)
		}
	}
	// Another architecture makes an old variant a new claim.
	img := odd.Image
	img.Architecture = "amd64"
	if err := (copydata.Settings{Image: img}).Check(odd); !errors.Is(err, kimg.ErrInvalid) || !strings.HasPrefix(err.Error(), "variant") {
		t.Error(err)
	}
}

// newState is the state of a container for linux on amd64, which is as its image is.
func newState(t *testing.T) *copydata.CopyData {
	t.Helper()
	config := []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)
	c, err := copydata.New(copydata.Origin{ImageID: strings.Repeat("a", 64), Format: "oci", Config: config}, strings.Repeat("b", 64), "c")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
