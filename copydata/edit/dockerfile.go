package edit

import (
	"slices"
	"strings"
	"unicode"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// Instructions makes the edits of Dockerfile instructions that change nothing but the configuration: CMD, ENTRYPOINT, ENV,
// EXPOSE, HEALTHCHECK, LABEL, MAINTAINER, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR. They mean what they mean
// to docker commit --change: ENTRYPOINT removes a command that none of the instructions before it has set, variables are
// those of the image. A text may hold several lines; a backslash at the end of one joins the next. "CMD=…" is read as well.
func Instructions(texts ...string) (List, error) {
	var edits List
	cmdSet := false
	for _, text := range texts {
		for _, line := range lines(text) {
			e, err := instruction(line, &cmdSet)
			if err != nil {
				return nil, err
			}
			edits = append(edits, e)
		}
	}
	return edits, nil
}

// lines takes comments out and joins what is continued.
func lines(text string) []string {
	var all []string
	open := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" && (open || strings.TrimSpace(text) != "") {
			continue
		}
		text, continued := strings.CutSuffix(line, `\`)
		if open {
			all[len(all)-1] += text
		} else {
			all = append(all, text)
		}
		open = continued
	}
	if len(all) == 0 {
		return []string{""}
	}
	return all
}

func instruction(line string, cmdSet *bool) (Edit, error) {
	word, rest := line, ""
	if i := strings.IndexFunc(line, func(r rune) bool { return r == '=' || unicode.IsSpace(r) }); i >= 0 {
		word, rest = line[:i], strings.TrimSpace(line[i+1:])
	}
	word = strings.ToUpper(word)
	if rest == "" {
		return Edit{}, invalid(word, "the instruction says nothing")
	}
	e := Edit{Note: word + " " + rest}
	var err error
	switch word {
	case "CMD":
		*cmdSet = true
		e.do, err = shellForm(word, rest, func(s *copydata.Settings, args []string) { s.Image.Config.Cmd = args })
	case "ENTRYPOINT":
		keep := *cmdSet
		e.do, err = shellForm(word, rest, func(s *copydata.Settings, args []string) {
			s.Image.Config.Entrypoint = args
			if !keep {
				s.Image.Config.Cmd = nil
			}
		})
	case "SHELL":
		args, ok, jerr := jsonWords(word, rest)
		if err = jerr; !ok && err == nil {
			err = invalid(word, "%s is not a JSON list of strings", kimg.Quote(rest))
		}
		e.do = func(s *copydata.Settings) error { s.Image.Config.Shell = slices.Clone(args); return nil }
	case "HEALTHCHECK":
		e.do, err = healthInstruction(word, rest)
	case "ONBUILD":
		e.do = func(s *copydata.Settings) error {
			s.Image.Config.OnBuild = append(s.Image.Config.OnBuild, rest)
			return nil
		}
	case "MAINTAINER":
		e.do = func(s *copydata.Settings) error { s.Image.Author = rest; return nil }
	default:
		e.late = strings.Contains(rest, "$")
		e.do, err = expanded(word, rest)
	}
	return e, err
}

// shellForm reads a command: a JSON list as it is, other text for the image's shell.
func shellForm(word, rest string, set func(*copydata.Settings, []string)) (do, error) {
	args, isList, err := jsonWords(word, rest)
	return func(s *copydata.Settings) error {
		if isList {
			set(s, slices.Clone(args))
			return nil
		}
		shell := []string{"/bin/sh", "-c"}
		if s.Image.OS == "windows" {
			shell = []string{"cmd", "/S", "/C"}
		}
		if len(s.Image.Config.Shell) > 0 {
			shell = s.Image.Config.Shell
		}
		set(s, append(slices.Clone(shell), rest))
		return nil
	}, err
}

// expanded are the instructions whose arguments may have quotes and variables.
func expanded(word, rest string) (do, error) {
	args, set, err := arguments(word, rest)
	if err != nil {
		return nil, err
	}
	carryOut := func(s *copydata.Settings, env func(string) (string, bool)) error {
		var values []string
		for _, arg := range args {
			value, err := expand(arg, env)
			if err != nil {
				return invalid(word, "%s: %w", kimg.Quote(arg), err)
			}
			values = append(values, value)
		}
		return set(s, values)
	}
	// Wrong quotes are wrong whatever the variables are.
	for _, arg := range args {
		if _, err := expand(arg, func(string) (string, bool) { return "", false }); err != nil {
			return nil, invalid(word, "%s: %w", kimg.Quote(arg), err)
		}
	}
	return func(s *copydata.Settings) error {
		before := copydata.Settings{Image: docker.Image{Config: &docker.Config{Env: slices.Clone(s.Image.Config.Env)}}}
		return carryOut(s, func(name string) (string, bool) { return getEnv(&before, name) })
	}, nil
}

// arguments splits the arguments of an instruction and says what to do with them when they are expanded.
func arguments(word, rest string) ([]string, func(*copydata.Settings, []string) error, error) {
	with := func(make func(string, []string) (do, error)) func(*copydata.Settings, []string) error {
		return func(s *copydata.Settings, values []string) error {
			change, err := make(word, values)
			if err != nil {
				return err
			}
			return change(s)
		}
	}
	switch word {
	case "ENV", "LABEL":
		args, err := keysAndValues(word, rest)
		return args, func(s *copydata.Settings, values []string) error {
			for i := 0; i < len(values); i += 2 {
				switch {
				case values[i] == "":
					return invalid(word, "an empty name")
				case word == "ENV":
					setEnv(s, values[i], values[i+1])
				default:
					_ = put(labels, values[i], values[i+1])(s)
				}
			}
			return nil
		}, err
	case "EXPOSE":
		return split(rest), func(s *copydata.Settings, values []string) error {
			for _, port := range strings.Fields(strings.Join(values, " ")) {
				_ = put(ports, strings.ToLower(withProtocol(port)), struct{}{})(s)
			}
			return nil
		}, nil
	case "VOLUME":
		args, isList, err := jsonWords(word, rest)
		if !isList {
			args = strings.Fields(rest)
		}
		return args, func(s *copydata.Settings, values []string) error {
			for _, path := range values {
				_ = put(volumes, path, struct{}{})(s)
			}
			return nil
		}, err
	case "USER":
		return []string{rest}, with(text(func(s *copydata.Settings) *string { return &s.Image.Config.User })), nil
	case "STOPSIGNAL":
		return []string{rest}, with(text(func(s *copydata.Settings) *string { return &s.Image.Config.StopSignal })), nil
	case "WORKDIR":
		return []string{rest}, with(workingDir), nil
	}
	return nil, nil, invalid("instruction", "%s does not change the configuration only", kimg.Quote(word))
}

// keysAndValues splits NAME=VALUE words, or a name and the rest of the line, into names and values in turn.
func keysAndValues(word, rest string) ([]string, error) {
	args := split(rest)
	if !strings.Contains(args[0], "=") {
		i := strings.IndexFunc(rest, unicode.IsSpace)
		if i < 0 {
			return nil, invalid(word, "%s has no value", kimg.Quote(rest))
		}
		return []string{rest[:i], strings.TrimSpace(rest[i:])}, nil
	}
	var all []string
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, invalid(word, "%s is not NAME=VALUE", kimg.Quote(arg))
		}
		all = append(all, name, value)
	}
	return all, nil
}

// healthInstruction reads [--OPTION=VALUE…] CMD command, or NONE.
func healthInstruction(word, rest string) (do, error) {
	changes := []do{func(s *copydata.Settings) error { s.Image.Config.Healthcheck = nil; return nil }}
	seen := map[string]bool{}
	for strings.HasPrefix(rest, "--") {
		option, after, _ := strings.Cut(rest, " ")
		rest = strings.TrimSpace(after)
		name, value, _ := strings.Cut(strings.TrimPrefix(option, "--"), "=")
		e, err := Set("healthcheck-"+name, value)
		if err != nil || value == "" || seen[name] {
			return nil, invalid(word, "%s is not an option with a value that it takes once", kimg.Quote(option))
		}
		seen[name] = true
		changes = append(changes, e.do)
	}
	kind, command, _ := strings.Cut(rest, " ")
	kind, command = strings.ToUpper(kind), strings.TrimSpace(command)
	args, isList, err := jsonWords(word, command)
	switch {
	case err != nil:
		return nil, err
	case kind == "NONE" && command == "" && len(seen) == 0:
		args = []string{kind}
	case kind != "CMD" || command == "":
		return nil, invalid(word, "it is [--OPTION=VALUE…] CMD command, or NONE")
	case isList:
		args = append([]string{kind}, args...)
	default:
		args = []string{"CMD-SHELL", command}
	}
	changes = append(changes, health(func(h *docker.Healthcheck) { h.Test = args }))
	return func(s *copydata.Settings) error {
		for _, change := range changes {
			if err := change(s); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
