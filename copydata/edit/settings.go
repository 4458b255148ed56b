package edit

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// Setting is one thing that can be set, under the name that command lines give it.
type Setting struct {
	Name  string
	Short string // one letter, or nothing
	Help  string // one line, with what a value is in backquotes
	Many  bool   // takes several values; of those, NAME- removes one and - all

	note string
	make func(name string, values []string) (do, error)
}

// Edit makes the edit that sets s to values; of a setting that is not Many, to the last one.
func (s Setting) Edit(values ...string) (Edit, error) {
	if len(values) == 0 {
		return Edit{}, invalid(s.Name, "no value")
	}
	if !s.Many {
		values = values[len(values)-1:]
	}
	change, err := s.make(s.Name, values)
	if err != nil {
		return Edit{}, err
	}
	e := Edit{do: change, late: s.Name == "env" && strings.Contains(strings.Join(values, ""), "$")}
	if s.note != "" {
		e.Note = s.note + strings.Join(values, " ")
	}
	return e, nil
}

// Set makes the edit that sets what has the name in [Settings].
func Set(name string, values ...string) (Edit, error) {
	all := Settings()
	i := slices.IndexFunc(all, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		return Edit{}, invalid(name, "nothing has this name")
	}
	return all[i].Edit(values...)
}

// Settings lists everything that can be set, in an order in which edits of all of them can be carried out.
func Settings() []Setting {
	type s = copydata.Settings
	return []Setting{
		{Name: "unsetenv", Help: "remove the environment variable `name`; may repeat", Many: true, make: unset(unsetEnv)},
		{Name: "unsetlabel", Help: "remove the label `name`; may repeat", Many: true, make: unset(unsetPair(labels))},
		{Name: "unsetannotation", Help: "remove the annotation `name`; may repeat", Many: true, make: unset(unsetPair(annotations))},
		{Name: "os", Help: "operating `system`, as Go names it", make: text(func(s *s) *string { return &s.Image.OS })},
		{Name: "arch", Help: "processor `architecture`, as Go names it", make: text(func(s *s) *string { return &s.Image.Architecture })},
		{Name: "variant", Help: "`variant` of the architecture", make: text(func(s *s) *string { return &s.Image.Variant })},
		{Name: "os-version", Help: "`version` of the operating system", make: text(func(s *s) *string { return &s.Image.OSVersion })},
		{Name: "os-feature", Help: "`feature` the operating system must have; may repeat", Many: true, make: list(func(s *s) *[]string { return &s.Image.OSFeatures }, true)},
		{Name: "author", Help: "`name` of the image's author", make: text(func(s *s) *string { return &s.Image.Author })},
		{Name: "comment", Help: "`text` about the image", make: text(func(s *s) *string { return &s.Image.Comment })},
		{Name: "created-by", Help: "`text` for the history entry of the next commit", make: text(func(s *s) *string { return &s.CreatedBy })},
		{Name: "history-comment", Help: "comment `text` for the history entry of the next commit", make: text(func(s *s) *string { return &s.HistoryComment })},
		{Name: "annotation", Short: "a", Help: "annotation `name=value` of the manifest; may repeat", Many: true, make: pairs(annotations)},
		{Name: "user", Short: "u", Help: "`user[:group]` that the command runs as", note: "USER ", make: text(func(s *s) *string { return &s.Image.Config.User })},
		{Name: "shell", Help: "`command` that runs commands written as text", note: "SHELL ", make: command(func(s *s) *docker.Strings { return &s.Image.Config.Shell }, false)},
		{Name: "stop-signal", Help: "`signal` that asks the command to stop", note: "STOPSIGNAL ", make: text(func(s *s) *string { return &s.Image.Config.StopSignal })},
		{Name: "stop-timeout", Help: "`seconds` the command gets to stop; -1 for no limit", make: stopTimeout},
		{Name: "port", Short: "p", Help: "`port[/protocol]`, or a range, that the image listens on; may repeat", Many: true, note: "EXPOSE ", make: members(ports, withProtocol)},
		{Name: "env", Short: "e", Help: "environment variable `name=value`; may repeat", Many: true, note: "ENV ", make: env},
		{Name: "entrypoint", Help: "`command` that the default command is given to", note: "ENTRYPOINT ", make: command(func(s *s) *docker.Strings { return &s.Image.Config.Entrypoint }, true)},
		{Name: "cmd", Help: "default `command`", note: "CMD ", make: command(func(s *s) *docker.Strings { return &s.Image.Config.Cmd }, false)},
		{Name: "volume", Short: "v", Help: "`path` that a volume is meant for; may repeat", Many: true, note: "VOLUME ", make: members(volumes, nil)},
		{Name: "healthcheck", Help: "`command` that tells whether a container works: text for its shell, CMD and words, or NONE", note: "HEALTHCHECK ", make: healthTest},
		{Name: "healthcheck-interval", Help: "`time` between two checks, such as 30s", note: "HEALTHCHECK --interval=", make: healthTime(interval)},
		{Name: "healthcheck-timeout", Help: "`time` after which a check has failed", note: "HEALTHCHECK --timeout=", make: healthTime(timeout)},
		{Name: "healthcheck-start-period", Help: "`time` during which failures do not count", note: "HEALTHCHECK --start-period=", make: healthTime(startPeriod)},
		{Name: "healthcheck-start-interval", Help: "`time` between two checks in the start period", note: "HEALTHCHECK --start-interval=", make: healthTime(startInterval)},
		{Name: "healthcheck-retries", Help: "`number` of failures that make a container unhealthy", note: "HEALTHCHECK --retries=", make: healthRetries},
		{Name: "label", Short: "l", Help: "label `name=value`; may repeat", Many: true, note: "LABEL ", make: pairs(labels)},
		{Name: "workingdir", Help: "working `directory` of the command; a relative one is below the former", note: "WORKDIR ", make: workingDir},
		{Name: "onbuild", Help: "`instruction` for images built on this one; may repeat", Many: true, note: "ONBUILD ", make: list(func(s *s) *[]string { return &s.Image.Config.OnBuild }, false)},
		{Name: "hostname", Help: "host `name` of containers", make: text(func(s *s) *string { return &s.Image.Config.Hostname })},
		{Name: "domainname", Help: "domain `name` of containers", make: text(func(s *s) *string { return &s.Image.Config.Domainname })},
	}
}

// text makes the edit that sets one text.
func text(field func(*copydata.Settings) *string) func(string, []string) (do, error) {
	return func(_ string, values []string) (do, error) {
		return func(s *copydata.Settings) error {
			*field(s) = values[0]
			return nil
		}, nil
	}
}

func stopTimeout(name string, values []string) (do, error) {
	var seconds *int
	if values[0] != "" {
		n, err := strconv.Atoi(values[0])
		if err != nil {
			return nil, invalid(name, "%s is not a number of seconds", kimg.Quote(values[0]))
		}
		seconds = &n
	}
	return func(s *copydata.Settings) error {
		s.Image.Config.StopTimeout = seconds
		return nil
	}, nil
}

// workingDir sets the working directory; a relative one is below the former.
func workingDir(_ string, values []string) (do, error) {
	return func(s *copydata.Settings) error {
		dir, c := values[0], s.Image.Config
		switch {
		case dir == "" || s.Image.OS == "windows":
		case path.IsAbs(dir):
			dir = path.Clean(dir)
		default:
			dir = path.Join("/", c.WorkingDir, dir)
		}
		c.WorkingDir = dir
		return nil
	}, nil
}

// command sets a command: a JSON list of strings as it is; other text as a shell reads words, or handed to /bin/sh as a
// whole.
func command(field func(*copydata.Settings) *docker.Strings, shell bool) func(string, []string) (do, error) {
	return func(name string, values []string) (do, error) {
		args, err := commandWords(name, values[0], shell)
		return func(s *copydata.Settings) error {
			*field(s) = slices.Clone(args)
			return nil
		}, err
	}
}

func commandWords(name, value string, shell bool) ([]string, error) {
	if args, ok, err := jsonWords(name, value); ok || err != nil {
		return args, err
	}
	if shell && strings.TrimSpace(value) != "" {
		return []string{"/bin/sh", "-c", value}, nil
	}
	return words(name, value)
}
