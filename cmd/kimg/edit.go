package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// edit is one change of a container's settings. Values are checked before an edit is made, so that a wrong command line
// is refused before anything is opened.
type edit func(*copydata.Settings) error

// apply carries edits out in order.
func apply(edits []edit) func(*copydata.Settings) error {
	return func(s *copydata.Settings) error {
		for _, e := range edits {
			if err := e(s); err != nil {
				return err
			}
		}
		return nil
	}
}

// applyToImage carries edits out on an image configuration alone.
func applyToImage(edits []edit) func(*docker.Image) error {
	return func(img *docker.Image) error {
		s := copydata.Settings{Image: *img}
		if err := apply(edits)(&s); err != nil {
			return err
		}
		*img = s.Image
		return nil
	}
}

// config returns the run configuration of the settings, made when there is none.
func config(s *copydata.Settings) *docker.Config {
	if s.Image.Config == nil {
		s.Image.Config = &docker.Config{}
	}
	return s.Image.Config
}

// text makes the edit that sets one text.
func text(field func(*copydata.Settings) *string, value string) edit {
	return func(s *copydata.Settings) error {
		*field(s) = value
		return nil
	}
}

// pair splits NAME=VALUE. what names the kind of pair in the error.
func pair(what, arg string) (name, value string, err error) {
	name, value, ok := strings.Cut(arg, "=")
	if !ok || name == "" {
		return "", "", usagef(what, "%s is not NAME=VALUE", kimg.Quote(arg))
	}
	return name, value, nil
}

// setEnv makes the edit that sets environment variables, "-" at the end of a name removes it, "-" alone removes all.
func setEnv(flag string, args []string) ([]edit, error) {
	var edits []edit
	for _, arg := range args {
		if name, ok := removal(arg); ok {
			edits = append(edits, unsetEnv(name))
			continue
		}
		name, _, err := pair(flag, arg)
		if err != nil {
			return nil, err
		}
		edits = append(edits, func(s *copydata.Settings) error {
			c := config(s)
			for i, have := range c.Env {
				if key, _, _ := strings.Cut(have, "="); key == name {
					c.Env[i] = arg
					return nil
				}
			}
			c.Env = append(c.Env, arg)
			return nil
		})
	}
	return edits, nil
}

// unsetEnv makes the edit that removes one variable, all of them when name is empty.
func unsetEnv(name string) edit {
	return func(s *copydata.Settings) error {
		c := config(s)
		c.Env = slices.DeleteFunc(c.Env, func(have string) bool {
			key, _, _ := strings.Cut(have, "=")
			return name == "" || key == name
		})
		return nil
	}
}

// removal recognises "NAME-" and "-", which remove what other arguments of the same flag set.
func removal(arg string) (name string, ok bool) {
	if strings.Contains(arg, "=") {
		return "", false
	}
	return strings.CutSuffix(arg, "-")
}

// labels and annotations are the two maps of text that an image has.
func labels(s *copydata.Settings) *map[string]string      { return &config(s).Labels }
func annotations(s *copydata.Settings) *map[string]string { return &s.Annotations }

// setPairs makes the edits that set members of a map of text, with the removals of [setEnv].
func setPairs(flag string, field func(*copydata.Settings) *map[string]string, args []string) ([]edit, error) {
	var edits []edit
	for _, arg := range args {
		if name, ok := removal(arg); ok {
			edits = append(edits, unsetPair(field, name))
			continue
		}
		name, value, err := pair(flag, arg)
		if err != nil {
			return nil, err
		}
		edits = append(edits, func(s *copydata.Settings) error {
			m := field(s)
			if *m == nil {
				*m = map[string]string{}
			}
			(*m)[name] = value
			return nil
		})
	}
	return edits, nil
}

// unsetPair makes the edit that removes one member, all of them when name is empty.
func unsetPair(field func(*copydata.Settings) *map[string]string, name string) edit {
	return func(s *copydata.Settings) error {
		maps.DeleteFunc(*field(s), func(key, _ string) bool { return name == "" || key == name })
		return nil
	}
}

// ports and volumes are the two sets of text that an image has.
func ports(s *copydata.Settings) *map[string]struct{}   { return &config(s).ExposedPorts }
func volumes(s *copydata.Settings) *map[string]struct{} { return &config(s).Volumes }

// setMembers makes the edits that add members to a set, with the removals of [setEnv]. check brings a member into the
// form it is kept in.
func setMembers(field func(*copydata.Settings) *map[string]struct{}, args []string, check func(string) (string, error)) ([]edit, error) {
	var edits []edit
	for _, arg := range args {
		name, remove := removal(arg)
		if !remove {
			name = arg
		}
		if name != "" {
			var err error
			if name, err = check(name); err != nil {
				return nil, err
			}
		}
		edits = append(edits, func(s *copydata.Settings) error {
			m := field(s)
			switch {
			case remove:
				maps.DeleteFunc(*m, func(key string, _ struct{}) bool { return name == "" || key == name })
			case *m == nil:
				*m = map[string]struct{}{name: {}}
			default:
				(*m)[name] = struct{}{}
			}
			return nil
		})
	}
	return edits, nil
}

// checkPort brings "80", "80/udp" or "8000-8010/tcp" into the form with a protocol.
func checkPort(port string) (string, error) {
	number, protocol, ok := strings.Cut(port, "/")
	if !ok {
		protocol = "tcp"
	}
	first, last, isRange := strings.Cut(number, "-")
	if !isRange {
		last = first
	}
	low, high := portNumber(first), portNumber(last)
	if low == 0 || high < low || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return "", usagef("port", "%s is not PORT[/tcp|udp|sctp]", kimg.Quote(port))
	}
	return number + "/" + protocol, nil
}

// portNumber returns 0 for what is not a port.
func portNumber(text string) int {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 65535 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	if n > 65535 {
		return 0
	}
	return n
}

// checkVolume accepts absolute paths.
func checkVolume(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		return "", usagef("volume", "%s is not an absolute path", kimg.Quote(path))
	}
	return path, nil
}

// command parses a command: a JSON list of strings as it is; other text as shell reads words, or handed to /bin/sh as
// a whole when shell is set.
func command(flag, value string, shell bool) ([]string, error) {
	trimmed := strings.TrimSpace(value)
	if trimmed == "" {
		return nil, nil
	}
	if strings.HasPrefix(trimmed, "[") {
		var list []string
		if json.Unmarshal([]byte(trimmed), &list) == nil {
			return list, nil
		}
	}
	if shell {
		return []string{"/bin/sh", "-c", value}, nil
	}
	return words(flag, value)
}

// words splits text like a shell: blanks separate, quotes and backslashes join. Nothing is expanded.
func words(flag, text string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range text {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inWord = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if inWord {
				out = append(out, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, usagef(flag, "%s ends inside a quotation", kimg.Quote(text))
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}
