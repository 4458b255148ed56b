package edit

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/strict"
)

// File makes the edit that merges a JSON object into the run configuration: what Docker and OCI images have as their
// config member. Maps and environment variables are merged by name, other members take the place of what was there, null
// clears a member. A member that no image has, one that is there twice or one of another type is an error; a file of more
// than 4 MiB is class limit.
func File(data []byte) (Edit, error) {
	if err := strict.Size("", int64(len(data)), strict.MaxDocument); err != nil {
		return Edit{}, err
	}
	if err := strict.UnmarshalExact(data, &docker.Config{}); err != nil {
		return Edit{}, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&docker.Config{}); err != nil {
		return Edit{}, invalid("", "%w", err)
	}
	members, err := strict.Object(data)
	if err != nil {
		return Edit{}, err
	}
	return Edit{do: func(s *copydata.Settings) error {
		var file docker.Config
		if err := json.Unmarshal(data, &file); err != nil {
			return invalid("", "%w", err)
		}
		before := s.Image.Config.Env
		s.Image.Config.Env = nil
		if err := json.Unmarshal(data, s.Image.Config); err != nil { // maps and objects of both become one
			return invalid("", "%w", err)
		}
		s.Image.Config.Env = before
		for _, variable := range file.Env {
			name, value, ok := strings.Cut(variable, "=")
			if !ok {
				return invalid("config.Env", "%s is not NAME=VALUE", kimg.Quote(variable))
			}
			setEnv(s, name, value)
		}
		for _, m := range members {
			if string(m.Value) == "null" {
				clearField(s.Image.Config, m.Name)
			}
		}
		return nil
	}}, nil
}
