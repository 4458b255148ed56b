package convert_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

var (
	word   = rapid.StringMatching(`[a-zA-Z<>&"\\ é\x{2028}\x{0}0-9]{0,6}`)
	words  = rapid.SliceOfN(word, 0, 3)
	labels = rapid.MapOfN(word, word, 0, 3)
	when   = rapid.Custom(func(t *rapid.T) *time.Time {
		if rapid.Bool().Draw(t, "no time") {
			return nil
		}
		zone := time.FixedZone("", 60*rapid.IntRange(-720, 720).Draw(t, "zone"))
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "nsec")).In(zone)
		return &at
	})
)

func set(t *rapid.T, name string) map[string]struct{} {
	m := map[string]struct{}{}
	for _, key := range words.Draw(t, name) {
		m[key] = struct{}{}
	}
	return m
}

func anyConfig(t *rapid.T) *docker.Config {
	c := &docker.Config{
		User: word.Draw(t, "user"), ExposedPorts: set(t, "ports"), Env: words.Draw(t, "env"), Entrypoint: words.Draw(t, "entrypoint"),
		Cmd: words.Draw(t, "cmd"), Volumes: set(t, "volumes"), WorkingDir: word.Draw(t, "dir"), Labels: labels.Draw(t, "labels"),
		StopSignal: word.Draw(t, "signal"), ArgsEscaped: rapid.Bool().Draw(t, "escaped"), OnBuild: words.Draw(t, "onbuild"),
		Shell: words.Draw(t, "shell"), Hostname: word.Draw(t, "host"), Tty: rapid.Bool().Draw(t, "tty"), Memory: rapid.Int64().Draw(t, "memory"),
	}
	if rapid.Bool().Draw(t, "has timeout") {
		n := rapid.IntRange(-1, 9).Draw(t, "timeout")
		c.StopTimeout = &n
	}
	if rapid.Bool().Draw(t, "has check") {
		c.Healthcheck = &docker.Healthcheck{Test: words.Draw(t, "test"), Interval: time.Duration(rapid.Int64().Draw(t, "interval")), Retries: 3}
	}
	return c
}

func anyImage(t *rapid.T) docker.Image {
	img := docker.Image{
		Created: when.Draw(t, "created"), Author: word.Draw(t, "author"), Architecture: word.Draw(t, "arch"), Variant: word.Draw(t, "variant"),
		OS: word.Draw(t, "os"), OSVersion: word.Draw(t, "os version"), OSFeatures: words.Draw(t, "features"),
		Comment: word.Draw(t, "comment"), Parent: word.Draw(t, "parent"), DockerVersion: word.Draw(t, "version"),
		RootFS: docker.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	if rapid.Bool().Draw(t, "has config") {
		img.Config = anyConfig(t)
	}
	if rapid.Bool().Draw(t, "has container config") {
		img.ContainerConfig = anyConfig(t)
	}
	withHistory := rapid.Bool().Draw(t, "has history")
	for i := range rapid.IntRange(0, 4).Draw(t, "entries") {
		h := docker.History{Created: when.Draw(t, "at"), CreatedBy: word.Draw(t, "by"), Comment: word.Draw(t, "said"), EmptyLayer: withHistory && rapid.Bool().Draw(t, "empty")}
		if !h.EmptyLayer {
			img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromString(fmt.Sprint(i, h.CreatedBy)))
		}
		if withHistory {
			img.History = append(img.History, h)
		}
	}
	return img
}

// anySource writes an image as a document, with members nobody knows at every level, its members in random order, and
// odd spacing.
func anySource(t *rapid.T) string {
	raw, err := json.Marshal(anyImage(t))
	if err != nil {
		t.Fatal(err)
	}
	return scramble(t, raw, "")
}

// The objects that may have members nobody knows. In all others every key means something.
var open = []string{"", ".config", ".container_config", ".rootfs", ".history[]"}

func scramble(t *rapid.T, raw json.RawMessage, path string) string {
	space := func() string { return rapid.SampledFrom([]string{"", " ", "\n\t"}).Draw(t, "space") }
	switch raw[0] {
	case '{':
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(m)) {
			name, _ := json.Marshal(key)
			parts = append(parts, string(name)+space()+":"+space()+scramble(t, m[key], path+"."+key))
		}
		if slices.Contains(open, path) {
			parts = append(parts, `"x-unknown":[1.50,{"path":"`+path+`"},1e999]`)
		}
		parts = rapid.Permutation(parts).Draw(t, "order")
		return "{" + space() + strings.Join(parts, space()+",") + space() + "}"
	case '[':
		var l []json.RawMessage
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, e := range l {
			parts = append(parts, scramble(t, e, path+"[]"))
		}
		return "[" + strings.Join(parts, ","+space()) + "]"
	}
	return string(raw)
}

// anyEdits applies a few edits of every kind.
func anyEdits(t *rapid.T, c convert.Config) convert.Config {
	for range rapid.IntRange(0, 4).Draw(t, "edits") {
		next, err := c.Edit(func(i *docker.Image) error {
			switch rapid.IntRange(0, 9).Draw(t, "edit") {
			case 0:
				i.Config = anyConfig(t)
			case 1:
				i.Config.Env = append(i.Config.Env, word.Draw(t, "more"))
			case 2:
				i.Config.Labels = labels.Draw(t, "labels")
			case 3:
				i.ContainerConfig = nil
			case 4:
				i.Created, i.Author = when.Draw(t, "created"), word.Draw(t, "author")
			case 5:
				i.OS, i.Architecture = word.Draw(t, "os"), word.Draw(t, "arch")
			case 6:
				i.History = nil
			case 7:
				i.RootFS.DiffIDs = append(i.RootFS.DiffIDs, diffC)
				i.History = make([]docker.History, len(i.RootFS.DiffIDs))
			case 8:
				i.Config.Volumes, i.Config.Cmd = set(t, "volumes"), nil
			case 9:
				if n := len(i.History); n > 0 {
					i.History[n-1].Comment = word.Draw(t, "comment")
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		c = next
	}
	return c
}

var same = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
})}

// OCI is the projection of Docker, after any edits.
func TestOCIIsTheProjection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]convert.Format{convert.OCI, convert.DockerV2S2}).Draw(t, "format")
		c, err := convert.Parse(convert.Document{Format: f, Config: []byte(anySource(t))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c = anyEdits(t, c)
		img := c.Docker()
		raw, err := json.Marshal(img)
		if err != nil {
			t.Fatal(err)
		}
		var want ispec.Image
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		_, report, err := c.JSON(convert.OCI)
		if err != nil {
			t.Fatal(err)
		}
		if want.OS == "" {
			want.OS = "linux"
		}
		if want.Architecture == "" {
			want.Architecture = "amd64"
		}
		if d := cmp.Diff(want, c.OCI(), same); d != "" {
			t.Fatalf("report %v: %s", report, d)
		}
		// What was written reads as the same image in both formats, and is written the same again.
		for _, to := range []convert.Format{convert.OCI, convert.DockerV2S2} {
			data, _, err := c.JSON(to)
			if err != nil {
				t.Fatal(err)
			}
			again, err := convert.Parse(convert.Document{Format: to, Config: data}, nil)
			if err != nil {
				t.Fatalf("%v in %s", err, data)
			}
			if to == convert.DockerV2S2 {
				if d := cmp.Diff(img, again.Docker(), same); d != "" {
					t.Fatal(d)
				}
			}
			if twice, _, err := again.JSON(to); err != nil || string(twice) != string(data) {
				t.Fatalf("%v\n%s\n%s", err, data, twice)
			}
		}
	})
}

// No edit loses a member nobody knows, unless it removes the object around it.
func TestUnknownMembersSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: []byte(anySource(t))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		had := c.Docker()
		_, hadConfig := object(t, c)["config"]
		c = anyEdits(t, c)
		doc := object(t, c)
		const marker = `[1.50,{"path":"`
		check := func(place string, raw json.RawMessage) {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(m["x-unknown"]), marker) {
				t.Fatalf("%s lost its unknown member: %s", place, raw)
			}
		}
		all, _, err := c.JSON(convert.OCI)
		if err != nil {
			t.Fatal(err)
		}
		check("the document", all)
		check("rootfs", doc["rootfs"])
		if hadConfig {
			check("config", doc["config"])
		}
		if had.ContainerConfig != nil && c.Docker().ContainerConfig != nil {
			check("container_config", doc["container_config"])
		}
	})
}

// A top member that an edit does not change keeps its bytes, and one taken back brings all bytes back.
func TestUntouchedBytesAreIdentical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		source := anySource(t)
		c, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: []byte(source)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		img := c.Docker()
		edited := anyEdits(t, c)
		before, after := object(t, c), object(t, edited)
		was, is := members(t, img), members(t, edited.Docker())
		for name, raw := range before {
			if string(was[name]) == string(is[name]) && string(after[name]) != string(raw) {
				t.Fatalf("%s changed\nfrom %s\nto   %s", name, raw, after[name])
			}
		}
		back, err := edited.Edit(func(i *docker.Image) error { *i = img; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if data, _, err := back.JSON(convert.DockerV2S2); err != nil || string(data) != source || back.Edited() {
			t.Fatalf("%v\nfrom %s\nto   %s", err, source, data)
		}
	})
}

// WithDocker finds any edit again from the document it was written as, however that was re-encoded.
func TestWithDockerFindsEdits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := convert.Parse(convert.Document{Format: convert.OCI, Config: []byte(anySource(t))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		edited := anyEdits(t, c)
		data, _, err := edited.JSON(convert.DockerV2S2)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		other, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.WithDocker(other)
		if err != nil {
			t.Fatal(err)
		}
		if again.Edited() != edited.Edited() {
			t.Fatalf("edited: %v, was %v", again.Edited(), edited.Edited())
		}
		if got, _, err := again.JSON(convert.DockerV2S2); !edited.Edited() && string(got) != string(data) || err != nil {
			t.Fatalf("%v\n%s\n%s", err, data, got)
		}
		if d := cmp.Diff(edited.Docker(), again.Docker(), same); d != "" {
			t.Fatal(d)
		}
	})
}

func object(t *rapid.T, c convert.Config) map[string]json.RawMessage {
	data, _, err := c.JSON(convert.DockerV2S2)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func members(t *rapid.T, img docker.Image) map[string]json.RawMessage {
	raw, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
