package edit

import (
	"strconv"
	"strings"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// health makes the edit of a health check. One that says nothing any more is removed.
func health(change func(*docker.Healthcheck)) do {
	return func(s *copydata.Settings) error {
		var h docker.Healthcheck
		if s.Image.Config.Healthcheck != nil {
			h = *s.Image.Config.Healthcheck
		}
		change(&h)
		s.Image.Config.Healthcheck = &h
		if len(h.Test) == 0 && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.StartInterval == 0 && h.Retries == 0 {
			s.Image.Config.Healthcheck = nil
		}
		return nil
	}
}

// healthTest sets the command: NONE, CMD and words or a JSON list, CMD-SHELL and text, or text, which is for the shell.
// Nothing removes the whole check.
func healthTest(name string, values []string) (do, error) {
	value := strings.TrimSpace(values[0])
	kind, rest, _ := strings.Cut(value, " ")
	var test []string
	switch list, isList, err := jsonWords(name, value); {
	case err != nil:
		return nil, err
	case isList:
		test = append(test, list...)
		if len(list) > 0 && list[0] != "CMD" && list[0] != "CMD-SHELL" && list[0] != "NONE" {
			test = append([]string{"CMD"}, list...)
		}
	case value == "":
		return health(func(h *docker.Healthcheck) { *h = docker.Healthcheck{} }), nil
	case value == "NONE":
		test = []string{value}
	case kind == "CMD":
		args, err := commandWords(name, rest, false)
		if err != nil {
			return nil, err
		}
		test = append([]string{kind}, args...)
	case kind == "CMD-SHELL":
		test = []string{kind, strings.TrimSpace(rest)}
	default:
		test = []string{"CMD-SHELL", value}
	}
	return health(func(h *docker.Healthcheck) { h.Test = test }), nil
}

// The durations of a health check.
func interval(h *docker.Healthcheck) *time.Duration      { return &h.Interval }
func timeout(h *docker.Healthcheck) *time.Duration       { return &h.Timeout }
func startPeriod(h *docker.Healthcheck) *time.Duration   { return &h.StartPeriod }
func startInterval(h *docker.Healthcheck) *time.Duration { return &h.StartInterval }

// healthTime sets a duration; nothing and 0 remove it.
func healthTime(field func(*docker.Healthcheck) *time.Duration) func(string, []string) (do, error) {
	return func(name string, values []string) (do, error) {
		var d time.Duration
		if values[0] != "" {
			var err error
			if d, err = time.ParseDuration(values[0]); err != nil {
				return nil, invalid(name, "%s is not a time such as 30s or 1m30s", kimg.Quote(values[0]))
			}
		}
		return health(func(h *docker.Healthcheck) { *field(h) = d }), nil
	}
}

// healthRetries sets the number of failures; nothing and 0 remove it.
func healthRetries(name string, values []string) (do, error) {
	n := 0
	if values[0] != "" {
		var err error
		if n, err = strconv.Atoi(values[0]); err != nil {
			return nil, invalid(name, "%s is not a number", kimg.Quote(values[0]))
		}
	}
	return health(func(h *docker.Healthcheck) { h.Retries = n }), nil
}
