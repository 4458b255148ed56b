package copydata

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// MaxHistory is how many steps of its history a state keeps: the first and the newest.
const MaxHistory = 100

// Step is one step of a state's history: a save that made, changed or upgraded the file.
type Step struct {
	Generation uint64   `json:"generation"`
	Schema     int      `json:"schema"`            // the version of the member list that was written
	What       string   `json:"what"`              // "created", "imported", "edited", "upgraded", "rebuilt"
	Members    []string `json:"members,omitempty"` // that were edited: "annotations", "config.Env"
}

// History returns the steps the state has gone through, oldest first. Steps that a file has in another form, which
// are kept in the file, are left out.
func (c *CopyData) History() []Step {
	var steps []Step
	for _, raw := range c.history {
		var s Step
		if strict.Unmarshal(raw, &s) == nil {
			steps = append(steps, s)
		}
	}
	return steps
}

// nextHistory adds a step when the save of this generation makes the file, changes what it says, or is the first one in
// this version of the member list.
func (c *CopyData) nextHistory(generation uint64) ([]json.RawMessage, error) {
	now := Step{Generation: generation, Schema: schema, What: "edited", Members: c.edited}
	steps := c.History()
	switch {
	case c.made != "":
		now.What = c.made
	case len(c.history) == 0:
		now.What = "created"
	case len(steps) == 0 || steps[len(steps)-1].Schema != schema:
		now.What = "upgraded"
	case len(c.edited) == 0:
		return c.history, nil
	}
	raw, err := strict.Marshal(now)
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInternal, FileName, "encode history: %w", err)
	}
	history := append(slices.Clone(c.history), raw)
	if surplus := len(history) - MaxHistory; surplus > 0 {
		history = slices.Delete(history, 1, 1+surplus)
	}
	return history, nil
}

// differences names the members in which two states differ. Where the container is mounted is not one of them: it
// changes with every mount and says nothing about the image.
func differences(a, b *CopyData) ([]string, error) {
	var names []string
	add := func(name string, same bool) {
		if !same {
			names = append(names, name)
		}
	}
	add("annotations", maps.Equal(a.annotations, b.annotations))
	add("layer-annotations", maps.Equal(a.layerAnnotations, b.layerAnnotations))
	add("container-name", a.name == b.name)
	add("created-by", a.createdBy == b.createdBy)
	add("history-comment", a.historyComment == b.historyComment)
	was, err := encodeImage(a.config.Docker())
	if err != nil {
		return nil, err
	}
	is, err := encodeImage(b.config.Docker())
	if err != nil {
		return nil, err
	}
	all := maps.Clone(was)
	maps.Copy(all, is)
	for name := range all {
		add(name, was[name] == is[name])
	}
	slices.Sort(names)
	return names, nil
}

// encodeImage returns the members of a configuration that say something, each as JSON. It changes nothing of config.
func encodeImage(config docker.Image) (map[string]string, error) {
	all := map[string]string{}
	inner := config.Config
	config.Config = nil
	for prefix, v := range map[string]any{"": config, "config.": inner} {
		raw, err := strict.Marshal(v)
		if err != nil {
			return nil, err
		}
		members, err := strict.Object(raw)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			all[prefix+m.Name] = string(m.Value)
		}
	}
	return all, nil
}
