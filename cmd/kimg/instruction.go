package main

import (
	"path"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
)

// instructions parses values of --change: Dockerfile instructions that change the configuration only.
func instructions(lines []string) ([]edit, error) {
	var edits []edit
	for _, line := range lines {
		more, err := instruction(line)
		if err != nil {
			return nil, err
		}
		edits = append(edits, more...)
	}
	return edits, nil
}

func instruction(line string) ([]edit, error) {
	const flag = "--change"
	line = strings.TrimSpace(line)
	word, rest := line, ""
	if i := strings.IndexAny(line, " \t="); i >= 0 { // "CMD=…" is what docker commit takes as well
		word, rest = line[:i], strings.TrimSpace(line[i+1:])
	}
	word = strings.ToUpper(word)
	if rest == "" {
		return nil, usagef(flag, "%s says nothing", kimg.Quote(line))
	}
	switch word {
	case "CMD", "ENTRYPOINT", "SHELL":
		return commandInstruction(flag, word, rest)
	case "ENV", "LABEL":
		list, err := pairs(flag, rest)
		if err != nil {
			return nil, err
		}
		if word == "ENV" {
			return setEnv(flag, list)
		}
		return setPairs(flag, labels, list)
	case "EXPOSE":
		return setMembers(ports, strings.Fields(rest), checkPort)
	case "VOLUME":
		list, err := command(flag, rest, false)
		if err != nil {
			return nil, err
		}
		return setMembers(volumes, list, checkVolume)
	case "USER":
		return one(text(func(s *copydata.Settings) *string { return &config(s).User }, rest))
	case "STOPSIGNAL":
		return one(text(func(s *copydata.Settings) *string { return &config(s).StopSignal }, rest))
	case "MAINTAINER":
		return one(text(func(s *copydata.Settings) *string { return &s.Image.Author }, rest))
	case "WORKDIR":
		return one(workdir(rest))
	case "ONBUILD":
		return one(func(s *copydata.Settings) error {
			config(s).OnBuild = append(config(s).OnBuild, rest)
			return nil
		})
	}
	return nil, usagef(flag, "%s is not an instruction that changes the configuration only", kimg.Quote(word))
}

func one(e edit) ([]edit, error) { return []edit{e}, nil }

func commandInstruction(flag, word, rest string) ([]edit, error) {
	args, err := command(flag, rest, true)
	if err != nil {
		return nil, err
	}
	return one(func(s *copydata.Settings) error {
		switch word {
		case "CMD":
			config(s).Cmd = args
		case "ENTRYPOINT":
			config(s).Entrypoint = args
		default:
			config(s).Shell = args
		}
		return nil
	})
}

// workdir makes the edit that changes the working directory; a relative one is below the former.
func workdir(dir string) edit {
	return func(s *copydata.Settings) error {
		c := config(s)
		if !path.IsAbs(dir) {
			dir = path.Join("/", c.WorkingDir, dir)
		}
		c.WorkingDir = path.Clean(dir)
		return nil
	}
}

// pairs parses the arguments of ENV and LABEL: NAME=VALUE words, or a name and the rest of the line.
func pairs(flag, rest string) ([]string, error) {
	list, err := words(flag, rest)
	if err != nil {
		return nil, err
	}
	if len(list) > 0 && !strings.Contains(list[0], "=") {
		name, value, ok := strings.Cut(rest, " ")
		if !ok {
			return nil, usagef(flag, "%s has no value", kimg.Quote(rest))
		}
		return []string{name + "=" + strings.TrimSpace(value)}, nil
	}
	return list, nil
}
