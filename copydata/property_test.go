package copydata_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/testimage"
)

// randomEdit changes one thing of the settings.
func randomEdit(t *rapid.T, s *copydata.Settings) {
	c := s.Image.Config
	texts := []*string{
		&s.Image.Author, &s.Image.Architecture, &s.Image.OS, &s.Image.Variant, &s.Image.OSVersion, &s.Image.Comment, &c.User, &c.WorkingDir, &c.StopSignal,
		&c.Hostname, &c.Domainname, &s.CreatedBy, &s.HistoryComment,
	}
	lists := []*[]string{&c.Env, (*[]string)(&c.Entrypoint), (*[]string)(&c.Cmd), &c.OnBuild, (*[]string)(&c.Shell), &s.Image.OSFeatures}
	maps := []*map[string]string{&c.Labels, &s.Annotations, &s.LayerAnnotations}
	sets := []*map[string]struct{}{&c.ExposedPorts, &c.Volumes}
	word := rapid.SampledFrom([]string{"a", "A=<b>", "x=\u2028", "é=\"", "RUN x", "80/tcp", "443", "/v", "/w/é"})
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0, 1:
		*rapid.SampledFrom(texts).Draw(t, "text") = rapid.SampledFrom([]string{"", "a", "arm64", "amd64", "linux", "v8", "/a", "9", "\u2028<b>"}).Draw(t, "value")
	case 2:
		*rapid.SampledFrom(lists).Draw(t, "list") = rapid.SliceOfN(word, 0, 3).Draw(t, "values")
	case 3:
		m := rapid.SampledFrom(maps).Draw(t, "map")
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[word.Draw(t, "key")] = word.Draw(t, "value")
	case 4:
		delete(*rapid.SampledFrom(maps).Draw(t, "map"), word.Draw(t, "key"))
	case 5:
		m := rapid.SampledFrom(sets).Draw(t, "set")
		*m = map[string]struct{}{word.Draw(t, "key"): {}}
	case 6:
		seconds := rapid.IntRange(0, 3).Draw(t, "seconds")
		if c.StopTimeout = &seconds; seconds == 3 {
			c.StopTimeout = nil
		}
	case 7:
		if c.Healthcheck = (&docker.Healthcheck{Test: []string{"CMD", word.Draw(t, "test")}}); rapid.Bool().Draw(t, "none") {
			c.Healthcheck = nil
		}
	}
}

// TestEditsKeepBothHalvesEqual: after any edits, saved and loaded at any time, the OCI configuration is the projection of
// the Docker one, in memory, in the file and in the document that is written; and taking everything back gives the image's
// bytes again.
func TestEditsKeepBothHalvesEqual(t *testing.T) {
	v1, _ := schema1(testimage.V1Options{Seed: 4, Layers: 2, Empty: 1})
	origins := []copydata.Origin{origin(t, convert.OCI), origin(t, convert.DockerV2S2), image(t, convert.OCI, everything, 1), image(t, convert.DockerV2S2, everything, 1), v1}
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom(origins).Draw(t, "image")
		c, err := copydata.New(o, ctr, "box")
		if err != nil {
			t.Fatal(err)
		}
		var first copydata.Settings
		if err := c.Update(func(s *copydata.Settings) error { first = *s; return nil }); err != nil {
			t.Fatal(err)
		}
		begin := map[convert.Format]string{}
		for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			data, _, err := c.Config().JSON(f)
			if err != nil {
				t.Fatal(err)
			}
			begin[f] = string(data)
		}
		annotations := c.Annotations()
		dir := &copydata.Memory{}
		for range rapid.IntRange(1, 10).Draw(t, "edits") {
			before := c.Config()
			err := c.Update(func(s *copydata.Settings) error { randomEdit(t, s); return nil })
			if err != nil && (!errors.Is(err, kimg.ErrInvalid) || !reflect.DeepEqual(before, c.Config())) { // what is not valid changes nothing
				t.Fatal(err)
			}
			agree(t, c)
			if rapid.Bool().Draw(t, "save") {
				if err := c.Save(dir); err != nil {
					t.Fatal(err)
				}
				if c, err = copydata.Load(dir, ctr); err != nil {
					t.Fatal(err)
				}
				agree(t, c)
			}
		}
		err = c.Update(func(s *copydata.Settings) error {
			s.Image, s.Annotations, s.LayerAnnotations, s.CreatedBy, s.HistoryComment = first.Image, annotations, nil, "", ""
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Save(dir); err != nil {
			t.Fatal(err)
		}
		if c, err = copydata.Load(dir, ctr); err != nil {
			t.Fatal(err)
		}
		for f, want := range begin {
			if data, _, err := c.Config().JSON(f); err != nil || string(data) != want || c.Config().Edited() {
				t.Fatalf("%s: set and unset changed the bytes: %v\n%s\n%s", f, err, want, data)
			}
		}
	})
}

// agree checks that all four ways to ask what an OCI reader sees have the same answer.
func agree(t *rapid.T, c *copydata.CopyData) {
	oci := c.Config().OCI()
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		data, _, err := c.Config().JSON(f)
		if err != nil {
			t.Fatal(err)
		}
		var seen ispec.Image
		if err := json.Unmarshal(data, &seen); err != nil {
			t.Fatal(err)
		}
		// What OCI requires and Docker does not is filled in for OCI only.
		if seen.Architecture == "" && f == convert.DockerV2S2 {
			seen.Architecture = oci.Architecture
		}
		if seen.OS == "" && f == convert.DockerV2S2 {
			seen.OS = oci.OS
		}
		if d := cmp.Diff(fmt.Sprintf("%+v", text(t, oci)), fmt.Sprintf("%+v", text(t, seen))); d != "" {
			t.Fatalf("%s: %s", f, d)
		}
	}
	if d := c.Config().Docker(); d.Config.User != oci.Config.User || !reflect.DeepEqual(d.Config.Labels, oci.Config.Labels) || len(d.History) != len(oci.History) {
		t.Fatalf("%+v\n%+v", d, oci)
	}
}

func text(t *rapid.T, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
