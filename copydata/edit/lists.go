package edit

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
)

// removal recognises "NAME-" and "-", which remove what other values of the same setting set.
func removal(value string) (name string, ok bool) {
	if strings.Contains(value, "=") {
		return "", false
	}
	return strings.CutSuffix(value, "-")
}

// each makes an edit of what make makes of each value.
func each(values []string, make func(value string) (do, error)) (do, error) {
	var all []do
	for _, value := range values {
		one, err := make(value)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return func(s *copydata.Settings) error {
		for _, one := range all {
			if err := one(s); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// unset makes edits that remove what has a name.
func unset(remove func(name string) do) func(string, []string) (do, error) {
	return func(what string, values []string) (do, error) {
		return each(values, func(name string) (do, error) {
			if name == "" {
				return nil, invalid(what, "an empty name")
			}
			return remove(name), nil
		})
	}
}

// pair splits NAME=VALUE.
func pair(what, value string) (string, string, error) {
	name, text, ok := strings.Cut(value, "=")
	if !ok || name == "" {
		return "", "", invalid(what, "%s is not NAME=VALUE", kimg.Quote(value))
	}
	return name, text, nil
}

// env sets variables. In a value $NAME and ${NAME} are what the image has in the variable, or nothing; $$ is a dollar.
func env(what string, values []string) (do, error) {
	return each(values, func(value string) (do, error) {
		if name, ok := removal(value); ok {
			return unsetEnv(name), nil
		}
		name, text, err := pair(what, value)
		return func(s *copydata.Settings) error {
			setEnv(s, name, os.Expand(text, func(name string) string {
				if name == "$" {
					return name
				}
				known, _ := getEnv(s, name)
				return known
			}))
			return nil
		}, err
	})
}

func getEnv(s *copydata.Settings, name string) (string, bool) {
	for _, have := range s.Image.Config.Env {
		if key, value, ok := strings.Cut(have, "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

func setEnv(s *copydata.Settings, name, value string) {
	c := s.Image.Config
	for i, have := range c.Env {
		if key, _, _ := strings.Cut(have, "="); key == name {
			c.Env[i] = name + "=" + value
			return
		}
	}
	c.Env = append(c.Env, name+"="+value)
}

// unsetEnv removes one variable, all of them when name is empty.
func unsetEnv(name string) do {
	return func(s *copydata.Settings) error {
		c := s.Image.Config
		c.Env = slices.DeleteFunc(c.Env, func(have string) bool {
			key, _, _ := strings.Cut(have, "=")
			return name == "" || key == name
		})
		return nil
	}
}

// The maps that an image has.
func labels(s *copydata.Settings) *map[string]string      { return &s.Image.Config.Labels }
func annotations(s *copydata.Settings) *map[string]string { return &s.Annotations }
func ports(s *copydata.Settings) *map[string]struct{}     { return &s.Image.Config.ExposedPorts }
func volumes(s *copydata.Settings) *map[string]struct{}   { return &s.Image.Config.Volumes }

// pairs sets members of a map of text.
func pairs(field func(*copydata.Settings) *map[string]string) func(string, []string) (do, error) {
	return func(what string, values []string) (do, error) {
		return each(values, func(value string) (do, error) {
			if name, ok := removal(value); ok {
				return unsetPair(field)(name), nil
			}
			name, text, err := pair(what, value)
			return put(field, name, text), err
		})
	}
}

// unsetPair removes one member of a map, all of them when name is empty.
func unsetPair[V any](field func(*copydata.Settings) *map[string]V) func(name string) do {
	return func(name string) do {
		return func(s *copydata.Settings) error {
			maps.DeleteFunc(*field(s), func(key string, _ V) bool { return name == "" || key == name })
			return nil
		}
	}
}

func put[V any](field func(*copydata.Settings) *map[string]V, name string, value V) do {
	return func(s *copydata.Settings) error {
		m := field(s)
		if *m == nil {
			*m = map[string]V{}
		}
		(*m)[name] = value
		return nil
	}
}

// members adds members to a set. form, which may be nil, brings one into the form it is kept in.
func members(field func(*copydata.Settings) *map[string]struct{}, form func(string) string) func(string, []string) (do, error) {
	return func(_ string, values []string) (do, error) {
		return each(values, func(value string) (do, error) {
			name, remove := strings.CutSuffix(value, "-")
			if form != nil && name != "" {
				name = form(name)
			}
			if remove {
				return unsetPair(field)(name), nil
			}
			return put(field, name, struct{}{}), nil
		})
	}
}

func withProtocol(port string) string {
	if strings.Contains(port, "/") {
		return port
	}
	return port + "/tcp"
}

// list adds to a list. With removals, NAME- removes what is equal to NAME; a - alone always removes all.
func list(field func(*copydata.Settings) *[]string, removals bool) func(string, []string) (do, error) {
	return func(_ string, values []string) (do, error) {
		return each(values, func(value string) (do, error) {
			name, remove := strings.CutSuffix(value, "-")
			remove = remove && (removals || name == "")
			return func(s *copydata.Settings) error {
				l := field(s)
				if remove {
					*l = slices.DeleteFunc(*l, func(have string) bool { return name == "" || have == name })
				} else {
					*l = append(*l, value)
				}
				return nil
			}, nil
		})
	}
}
