package commit_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
)

// An edited image differs from the first in nothing else, and taken back it is the first.
func TestEdit(t *testing.T) {
	for _, format := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		s := newStore(t)
		c := container(t, s, nil)
		edit(t, c, func(root string) { write(t, root, "a", "a") })
		made, err := commit.Container(t.Context(), s, c.ID, commit.Options{Format: format, Names: []string{"first"}, Created: &day})
		if err != nil {
			t.Fatal(err)
		}
		first, err := s.Resolve(t.Context(), made.ImageID, nil)
		if err != nil {
			t.Fatal(err)
		}
		set := func(s *copydata.Settings) error {
			s.Image.Config.Labels, s.Image.Config.Hostname = map[string]string{"l": "1"}, "h"
			return nil
		}
		edited, err := commit.Edit(t.Context(), s, first, set, commit.Options{Names: []string{"second"}})
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.Resolve(t.Context(), "second", nil)
		if err != nil || second.ID != edited.ImageID || second.TopLayer != first.TopLayer || !second.Created.Equal(first.Created) {
			t.Fatalf("%v: %+v, was %+v", err, second, first)
		}
		if warned := len(edited.Report) == 1 && edited.Report[0].Path == "config.Hostname"; warned != (format == convert.OCI) {
			t.Errorf("%s: %v", format, edited.Report)
		}
		unset := func(s *copydata.Settings) error {
			s.Image.Config.Labels, s.Image.Config.Hostname = nil, ""
			return nil
		}
		back, err := commit.Edit(t.Context(), s, second, unset, commit.Options{Names: []string{"third"}})
		if err != nil || back.ImageID != first.ID || back.ManifestDigest != made.ManifestDigest {
			t.Errorf("%s: %v: %s %s, want %s %s", format, err, back.ImageID, back.ManifestDigest, first.ID, made.ManifestDigest)
		}
		third, err := s.Resolve(t.Context(), "third", nil)
		if err != nil {
			t.Fatal(err)
		}
		a, _, err := first.Manifest(t.Context())
		b, _, err2 := third.Manifest(t.Context())
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v %v\n%s\n%s", format, err, err2, a, b)
		}

		// What is refused changes nothing.
		before, err := s.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wrong := func(s *copydata.Settings) error { s.Image.Config.User = "a:b:c"; return nil }
		if _, err := commit.Edit(t.Context(), s, first, wrong, commit.Options{Names: []string{"fourth"}}); !errors.Is(err, kimg.ErrInvalid) {
			t.Error(err)
		}
		if _, err := commit.Edit(t.Context(), s, first, set, commit.Options{Names: []string{"Not A Name"}}); !errors.Is(err, kimg.ErrInvalid) {
			t.Error(err)
		}
		if after, err := s.Images(t.Context()); err != nil || len(after) != len(before) {
			t.Errorf("%v: %d images, were %d", err, len(after), len(before))
		}
	}
}
