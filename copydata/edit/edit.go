// Package edit makes edits of a container's settings of what people write: the values of command line flags ([Settings]),
// Dockerfile instructions ([Instructions]), a configuration file ([File]) and the names of members to clear ([Clear]).
//
// Making an edit checks its syntax and touches nothing. What it does to settings that are there already is known when it
// is carried out, so [copydata.CopyData.Update], which checks the outcome, is the place for that:
//
//	edits, err := edit.Instructions("ENTRYPOINT [\"/app\"]", "USER www")
//	…
//	err = state.Update(edits.Apply)
//
// All errors are class invalid.
package edit

import (
	"encoding/json"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// Edit is one change of settings.
type Edit struct {
	// Note is the Dockerfile instruction that does the same, for a history entry; empty when there is none.
	Note string

	do   do
	late bool // what it sets depends on the settings it meets
}

// do carries an edit out. The Config member of the image is not nil.
type do func(*copydata.Settings) error

// List is a list of edits, carried out in order.
type List []Edit

// Apply carries the edits out.
func (l List) Apply(s *copydata.Settings) error {
	if s.Image.Config == nil {
		s.Image.Config = &docker.Config{}
	}
	for _, e := range l {
		if err := e.do(s); err != nil {
			return err
		}
	}
	return nil
}

// Check reports what is wrong with the edits whatever settings they meet.
func (l List) Check() error {
	var s copydata.Settings
	for _, e := range l {
		if e.late {
			continue
		}
		if err := (List{e}).Apply(&s); err != nil {
			return err
		}
	}
	return s.Check(copydata.Settings{})
}

// ApplyTo carries the edits out on the configuration of an image alone, and checks the outcome. Edits of anything else have
// no effect.
func (l List) ApplyTo(img *docker.Image) error {
	var was docker.Image
	if data, err := json.Marshal(img); err != nil || json.Unmarshal(data, &was) != nil {
		return invalid("config", "it cannot be written: %v", err)
	}
	s := copydata.Settings{Image: *img}
	if err := l.Apply(&s); err != nil {
		return err
	}
	*img = s.Image
	return s.Check(copydata.Settings{Image: was})
}

// Record returns the edit that adds a history entry for each edit that has a note, as builds do, or one entry with the
// text createdBy when that is not empty.
func (l List) Record(created time.Time, createdBy string) Edit {
	var texts []string
	for _, e := range l {
		if e.Note != "" {
			texts = append(texts, "/bin/sh -c #(nop) "+e.Note)
		}
	}
	if createdBy != "" {
		texts = []string{createdBy}
	}
	return Edit{do: func(s *copydata.Settings) error {
		if len(s.Image.History) == 0 { // one entry for each layer, or none at all
			s.Image.History = make([]docker.History, len(s.Image.RootFS.DiffIDs))
		}
		for _, text := range texts {
			s.Image.History = append(s.Image.History, docker.History{Created: &created, CreatedBy: text, EmptyLayer: true})
		}
		return nil
	}}
}

func invalid(what, format string, args ...any) error {
	return kimg.Errorf(kimg.ErrInvalid, what, format, args...)
}
