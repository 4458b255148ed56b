package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kimg/kimg/internal/strict"
)

// top returns the members of the newest entry: those of the configuration that schema 1 has, and what else the last
// history entry says, as far as the configuration leaves room for it.
func (w *v1Writer) top() map[string]json.RawMessage {
	if w.err != nil {
		return nil
	}
	top, err := memberMap(w.raw)
	if err != nil {
		w.err = err
		return nil
	}
	delete(top, "rootfs")
	delete(top, "history")
	w.chainMembers(top)
	if len(w.image.History) == 0 {
		return top
	}
	last := w.steps[len(w.steps)-1]
	at := fmt.Sprintf("history[%d].", len(w.steps)-1)
	const one = "schema 1 has one text for the image and its newest step, that of the image"
	for _, t := range []struct{ name, image, step string }{{"author", w.image.Author, last.Author}, {"comment", w.image.Comment, last.Comment}} {
		switch {
		case t.image == t.step:
		case t.image == "":
			w.put(top, t.name, t.step, "schema 1 has one text for the image and its newest step")
		default:
			w.report = append(w.report, Change{at + t.name, Changed, one})
		}
	}
	switch is, was := w.image.Created, w.image.History[len(w.steps)-1].Created; {
	case sameTime(is, was):
	case is == nil:
		w.put(top, "created", last.Created, "schema 1 has one date for the image and its newest step")
	default:
		w.report = append(w.report, Change{at + "created", Changed, "schema 1 has one date for the image and its newest step, that of the image"})
	}
	w.command(top, last.CreatedBy, at)
	return top
}

// chainMembers removes what schema 1 would take for its own chain of entries.
func (w *v1Writer) chainMembers(top map[string]json.RawMessage) {
	chain := slices.Collect(maps.Keys(fieldsOf(reflect.TypeFor[v1Only]())))
	for _, name := range slices.Sorted(maps.Keys(top)) {
		if !slices.ContainsFunc(chain, func(c string) bool { return strings.EqualFold(c, name) }) {
			continue
		}
		if !blank(top[name]) {
			w.report = append(w.report, Change{name, Lost, "schema 1 has a member of that name for its chain of entries"})
		}
		delete(top, name)
	}
}

// command puts the command of the last step where schema 1 has it, unless the configuration has another there.
func (w *v1Writer) command(top map[string]json.RawMessage, createdBy, at string) {
	var words []string
	if w.image.ContainerConfig != nil {
		words = w.image.ContainerConfig.Cmd
	}
	switch had := strings.Join(words, " "); {
	case had == createdBy:
	case had != "":
		w.report = append(w.report, Change{at + "created_by", Changed, "schema 1 has the command in container_config, which has another"})
	case isA('{', top["container_config"]):
		cmd, err := strict.Marshal([]string{createdBy})
		if err == nil {
			top["container_config"], err = setMember(top["container_config"], "Cmd", cmd)
		}
		if w.err == nil {
			w.err = err
		}
		w.report = append(w.report, Change{"container_config.Cmd", Added, "schema 1 has the command of a step there"})
	default:
		w.put(top, "container_config", v1Command{[]string{createdBy}}, "schema 1 has the command of a step there")
	}
}

// put adds a member to the newest entry and reports it.
func (w *v1Writer) put(top map[string]json.RawMessage, name string, value any, why string) {
	raw, err := strict.Marshal(value)
	if w.err == nil {
		w.err = err
	}
	top[name] = raw
	w.report = append(w.report, Change{name, Added, why})
}

func sameTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

// newest writes the newest entry: the configuration, and its place in the chain.
func newest(top map[string]json.RawMessage, at v1Older) (json.RawMessage, error) {
	chain, err := strict.Marshal(v1Older{ID: at.ID, Parent: at.Parent, Throwaway: at.Throwaway})
	if err != nil {
		return nil, err
	}
	place, err := memberMap(chain)
	if err != nil {
		return nil, err
	}
	for name, value := range place {
		top[name] = value
	}
	return strict.Marshal(top)
}
