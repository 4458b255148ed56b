package main

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                     nil,
		"  ":                   nil,
		"a b":                  {"a", "b"},
		"\ta \n b ":            {"a", "b"},
		`"a b" 'c d'`:          {"a b", "c d"},
		`a"b"c`:                {"abc"},
		`'' ""`:                {"", ""},
		`a\ b \"`:              {"a b", `"`},
		`"a\"b\\c\d"`:          {`a"b\c\d`},
		`'a\b'`:                {`a\b`},
		`sh -c 'echo "$HOME"'`: {"sh", "-c", `echo "$HOME"`},
	} {
		got, err := words("--cmd", text)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("words(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{`"a`, `'a`, `a\`, `"a\"`} {
		if got, err := words("--cmd", text); !isUsage(err) {
			t.Errorf("words(%q) = %q, %v", text, got, err)
		}
	}
}

func isUsage(err error) bool {
	var wrong usageError
	return errors.As(err, &wrong)
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		text  string
		shell bool
		want  []string
	}{
		{`["a", "b c"]`, false, []string{"a", "b c"}},
		{`["a"]`, true, []string{"a"}},
		{`[a]`, false, []string{"[a]"}},
		{"a b", false, []string{"a", "b"}},
		{"a b", true, []string{"/bin/sh", "-c", "a b"}},
		{" ", true, nil},
	} {
		got, err := command("--cmd", c.text, c.shell)
		if err != nil || !cmp.Equal(got, c.want) {
			t.Errorf("command(%q, %v) = %q, %v", c.text, c.shell, got, err)
		}
	}
}

func TestCheckPort(t *testing.T) {
	for port, want := range map[string]string{
		"80": "80/tcp", "53/udp": "53/udp", "1-65535/sctp": "1-65535/sctp",
		"": "", "0": "", "65536": "", "99999999999999999999": "", "a": "", "80/": "", "80/icmp": "", "9-8": "", "-1": "", "1-": "", "8 0": "",
	} {
		got, err := checkPort(port)
		if got != want || (want == "") != isUsage(err) {
			t.Errorf("checkPort(%q) = %q, %v", port, got, err)
		}
	}
}

// Each instruction and each removal, on top of settings that hold something already.
func TestEdits(t *testing.T) {
	start := func() copydata.Settings {
		return copydata.Settings{
			Annotations: map[string]string{"old": "1"},
			Image: docker.Image{Config: &docker.Config{
				Env: []string{"PATH=/bin", "OLD=1"}, Labels: map[string]string{"old": "1"}, WorkingDir: "/w",
				ExposedPorts: map[string]struct{}{"1/tcp": {}}, Volumes: map[string]struct{}{"/old": {}}, OnBuild: []string{"RUN x"},
			}},
		}
	}
	for name, c := range map[string]struct {
		edits func() ([]edit, error)
		want  func(*copydata.Settings)
	}{
		"ENV": {change(`ENV A=1 B="x y" OLD=2`), func(s *copydata.Settings) {
			s.Image.Config.Env = []string{"PATH=/bin", "OLD=2", "A=1", "B=x y"}
		}},
		"old ENV":    {change(`ENV A b  c`), func(s *copydata.Settings) { s.Image.Config.Env = append(s.Image.Config.Env, "A=b  c") }},
		"LABEL":      {change(`label a=1`), func(s *copydata.Settings) { s.Image.Config.Labels["a"] = "1" }},
		"CMD":        {change(`CMD ["a", "b"]`), func(s *copydata.Settings) { s.Image.Config.Cmd = docker.Strings{"a", "b"} }},
		"CMD shell":  {change(`CMD a  b`), func(s *copydata.Settings) { s.Image.Config.Cmd = docker.Strings{"/bin/sh", "-c", "a  b"} }},
		"CMD=":       {change(`CMD=["a"]`), func(s *copydata.Settings) { s.Image.Config.Cmd = docker.Strings{"a"} }},
		"ENTRYPOINT": {change(`ENTRYPOINT ["a"]`), func(s *copydata.Settings) { s.Image.Config.Entrypoint = docker.Strings{"a"} }},
		"EXPOSE": {change(`EXPOSE 80 53/udp`), func(s *copydata.Settings) {
			s.Image.Config.ExposedPorts["80/tcp"], s.Image.Config.ExposedPorts["53/udp"] = struct{}{}, struct{}{}
		}},
		"VOLUME": {change(`VOLUME /a /b`), func(s *copydata.Settings) {
			s.Image.Config.Volumes["/a"], s.Image.Config.Volumes["/b"] = struct{}{}, struct{}{}
		}},
		"USER":       {change(`USER a:b`), func(s *copydata.Settings) { s.Image.Config.User = "a:b" }},
		"WORKDIR":    {change(`WORKDIR ../x`), func(s *copydata.Settings) { s.Image.Config.WorkingDir = "/x" }},
		"STOPSIGNAL": {change(`STOPSIGNAL 9`), func(s *copydata.Settings) { s.Image.Config.StopSignal = "9" }},
		"ONBUILD":    {change(`ONBUILD RUN y`), func(s *copydata.Settings) { s.Image.Config.OnBuild = []string{"RUN x", "RUN y"} }},
		"MAINTAINER": {change(`MAINTAINER me`), func(s *copydata.Settings) { s.Image.Author = "me" }},
		"no variable": {func() ([]edit, error) { return setEnv("--env", []string{"OLD-"}) },
			func(s *copydata.Settings) { s.Image.Config.Env = []string{"PATH=/bin"} }},
		"no variables": {func() ([]edit, error) { return setEnv("--env", []string{"-", "N=1"}) },
			func(s *copydata.Settings) { s.Image.Config.Env = []string{"N=1"} }},
		"no labels": {func() ([]edit, error) { return setPairs("--label", labels, []string{"-"}) },
			func(s *copydata.Settings) { s.Image.Config.Labels = map[string]string{} }},
		"value that ends in a dash": {func() ([]edit, error) { return setPairs("--label", labels, []string{"a=b-"}) },
			func(s *copydata.Settings) { s.Image.Config.Labels["a"] = "b-" }},
		"no annotation": {func() ([]edit, error) { return []edit{unsetPair(annotations, "old")}, nil },
			func(s *copydata.Settings) { s.Annotations = map[string]string{} }},
		"no port": {func() ([]edit, error) { return setMembers(ports, []string{"1-", "2"}, checkPort) },
			func(s *copydata.Settings) { s.Image.Config.ExposedPorts = map[string]struct{}{"2/tcp": {}} }},
	} {
		t.Run(name, func(t *testing.T) {
			edits, err := c.edits()
			if err != nil {
				t.Fatal(err)
			}
			got, want := start(), start()
			c.want(&want)
			if err := apply(edits)(&got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			// Settings without anything take every edit too.
			if err := apply(edits)(&copydata.Settings{}); err != nil {
				t.Error(err)
			}
		})
	}
	for _, line := range []string{"", "CMD", "RUN x", "ENV A", "ENV =x", "EXPOSE x", "VOLUME rel", "LABEL \"a", "FROM x", "ENV A=1 B"} {
		if _, err := instructions([]string{line}); !isUsage(err) {
			t.Errorf("--change %q: %v", line, err)
		}
	}
}

func change(line string) func() ([]edit, error) {
	return func() ([]edit, error) { return instructions([]string{line}) }
}
