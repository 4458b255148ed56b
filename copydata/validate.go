package copydata

import (
	"errors"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
)

// Check checks what s says otherwise than was: what an edit brings in must be valid, what an image came with need not
// be, and to remove something is always right, but for os and architecture. Errors are class invalid and name the member
// as the configuration spells it. [CopyData.Update] does this with every edit.
func (s Settings) Check(was Settings) error {
	now, old := s.Image, was.Image
	c, o := orNothing(now.Config), orNothing(old.Config)
	windows := now.OS == "windows"
	variant := differs(old.Variant, now.Variant)
	if now.Architecture != old.Architecture && now.Architecture != "" {
		variant = differs("", now.Variant) // the same text means something else now
	}
	for _, r := range []struct {
		member string
		values []string
		reason func(string) error
	}{
		{"os", differs(old.OS, now.OS), oneOf(systems)},
		{"architecture", differs(old.Architecture, now.Architecture), oneOf(architectures)},
		{"variant", variant, variantOf(now.Architecture)},
		{"os.version", differs(old.OSVersion, now.OSVersion), word},
		{"os.features", added(old.OSFeatures, now.OSFeatures), word},
		{"author", differs(old.Author, now.Author), text},
		{"comment", differs(old.Comment, now.Comment), text},
		{"config.User", differs(o.User, c.User), user},
		{"config.ExposedPorts", addedKeys(o.ExposedPorts, c.ExposedPorts), port},
		{"config.Env", added(o.Env, c.Env), variable},
		{"config.Entrypoint", added(o.Entrypoint, c.Entrypoint), text},
		{"config.Cmd", added(o.Cmd, c.Cmd), text},
		{"config.Shell", added(o.Shell, c.Shell), text},
		{"config.Volumes", addedKeys(o.Volumes, c.Volumes), absolute(windows)},
		{"config.WorkingDir", differs(o.WorkingDir, c.WorkingDir), absolute(windows)},
		{"config.Labels", addedKeys(o.Labels, c.Labels), key},
		{"config.StopSignal", differs(o.StopSignal, c.StopSignal), signal},
		{"config.OnBuild", added(o.OnBuild, c.OnBuild), trigger},
		{"config.Hostname", differs(o.Hostname, c.Hostname), hostname},
		{"config.Domainname", differs(o.Domainname, c.Domainname), hostname},
		{"config.MacAddress", differs(o.MacAddress, c.MacAddress), func(s string) error { _, err := net.ParseMAC(s); return brief(err, "not a MAC address") }},
		{"annotations", addedKeys(was.Annotations, s.Annotations), key},
		{"layer-annotations", addedKeys(was.LayerAnnotations, s.LayerAnnotations), key},
	} {
		for _, value := range r.values {
			if err := r.reason(value); err != nil {
				return kimg.Errorf(kimg.ErrInvalid, r.member, "%s is %w", kimg.Quote(value), err)
			}
		}
	}
	switch {
	case now.OS == "" && old.OS != "":
		return kimg.Errorf(kimg.ErrInvalid, "os", "an image needs one")
	case now.Architecture == "" && old.Architecture != "":
		return kimg.Errorf(kimg.ErrInvalid, "architecture", "an image needs one")
	case c.StopTimeout != nil && *c.StopTimeout < -1:
		return kimg.Errorf(kimg.ErrInvalid, "config.StopTimeout", "%d is not a number of seconds, nor -1 for no limit", *c.StopTimeout)
	case c.Healthcheck != nil && !reflect.DeepEqual(c.Healthcheck, o.Healthcheck):
		return healthcheck(*c.Healthcheck)
	}
	return nil
}

func orNothing(c *docker.Config) docker.Config {
	if c == nil {
		return docker.Config{}
	}
	return *c
}

// differs, added and addedKeys return what an edit brought in.
func differs(was, now string) []string { return added([]string{was, ""}, []string{now}) }

func added(was, now []string) []string {
	return slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(was, s) })
}

func addedKeys[V any](was, now map[string]V) []string {
	return added(slices.Collect(maps.Keys(was)), slices.Sorted(maps.Keys(now)))
}

func brief(err error, instead string) error {
	if err == nil {
		return nil
	}
	return errors.New(instead)
}

// text refuses what no program can be given.
func text(s string) error {
	if strings.ContainsRune(s, 0) {
		return errors.New("text with a NUL")
	}
	return nil
}

// word accepts one word.
func word(s string) error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return errors.New("not a word")
	}
	return nil
}

// key accepts names of labels and annotations.
func key(s string) error {
	if s == "" || strings.TrimSpace(s) != s || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("not a name: empty, with blanks around it, or with control characters")
	}
	return nil
}

func variable(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || word(name) != nil {
		return errors.New("not NAME=VALUE")
	}
	return text(value)
}

func absolute(windows bool) func(string) error {
	return func(s string) error {
		drive := windows && len(s) > 2 && s[1] == ':' && (s[2] == '\\' || s[2] == '/')
		if !drive && !strings.HasPrefix(s, "/") && !(windows && strings.HasPrefix(s, `\`)) || strings.ContainsFunc(s, unicode.IsControl) {
			return errors.New("not an absolute path")
		}
		return nil
	}
}

// port accepts "80", "80/udp" and "8000-8010/tcp".
func port(s string) error {
	numbers, protocol, hasProtocol := strings.Cut(s, "/")
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	low, high := number(first, 1<<16-1), number(last, 1<<16-1)
	if low < 1 || high < low || hasProtocol && !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return errors.New("not PORT[-PORT][/tcp|udp|sctp] with ports from 1 to 65535")
	}
	return nil
}

// number reads digits; -1 when it is something else or more than max.
func number(s string, max int64) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > max || s[0] < '0' || s[0] > '9' {
		return -1
	}
	return n
}

// user accepts user[:group], names or numbers.
func user(s string) error {
	parts := strings.Split(s, ":")
	for _, part := range parts {
		digits := strings.Trim(part, "0123456789") == ""
		if len(parts) > 2 || word(part) != nil || digits && number(part, 1<<32-2) < 0 {
			return errors.New("not user[:group], names or numbers up to 4294967294")
		}
	}
	return nil
}

func hostname(s string) error {
	wrong := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if len(s) > 253 || strings.ContainsFunc(s, wrong) || strings.Trim(s, "-.") != s {
		return errors.New("not the name of a host")
	}
	return nil
}

// trigger accepts an instruction for images built on this one.
func trigger(s string) error {
	instruction, rest, _ := strings.Cut(s, " ")
	switch strings.ToUpper(instruction) {
	case "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR":
		if strings.TrimSpace(rest) != "" {
			return text(s)
		}
	}
	return errors.New("not a Dockerfile instruction that may wait for another build")
}

// healthcheck checks a check of health. All its errors name the member.
func healthcheck(h docker.Healthcheck) error {
	const member = "config.Healthcheck"
	for _, d := range []struct {
		name string
		time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.Duration != 0 && d.Duration < time.Millisecond {
			return kimg.Errorf(kimg.ErrInvalid, member+"."+d.name, "%s is shorter than 1ms", d.Duration)
		}
	}
	if h.Retries < 0 {
		return kimg.Errorf(kimg.ErrInvalid, member+".Retries", "%d is not a number of times", h.Retries)
	}
	if len(h.Test) == 0 {
		return nil
	}
	switch n := len(h.Test); {
	case h.Test[0] == "NONE" && n == 1, h.Test[0] == "CMD" && n > 1, h.Test[0] == "CMD-SHELL" && n > 1:
		return nil
	}
	return kimg.Errorf(kimg.ErrInvalid, member+".Test", "a test is NONE, or CMD or CMD-SHELL with a command")
}
