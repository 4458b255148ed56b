package convert

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"reflect"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	"github.com/opencontainers/go-digest"
)

// Edit returns the configuration as fn leaves it. fn gets a copy of everything known ([Config.Docker]), whose Config
// member is not nil, and may change any of it; OCI follows by itself. What fn does not change keeps its bytes, and
// taking an earlier edit back gives the source's bytes again.
//
// A time set to the zero time means unknown, as nil does. The result must be an image: rootfs of type "layers", valid
// diff IDs, as many of them as history entries with a layer (or no history); otherwise class invalid. An error of fn
// is returned as it is.
func (c Config) Edit(fn func(*docker.Image) error) (Config, error) {
	if c.raw == nil {
		return Config{}, kimg.Errorf(kimg.ErrInvalid, "config", "there is no configuration to edit")
	}
	img := c.Docker()
	if err := fn(&img); err != nil {
		return Config{}, err
	}
	edited, err := c.with(img)
	return edited, kimg.Wrap("config", err)
}

// with returns the configuration whose known members are those of img.
func (c Config) with(img docker.Image) (Config, error) {
	was := decode(c.base)
	before, err := encode(was)
	if err != nil {
		return Config{}, err
	}
	forgetZeroTimes(&img, was)
	if err := checkImage(img); err != nil {
		return Config{}, err
	}
	if !validText(reflect.ValueOf(img)) {
		return Config{}, invalid("json: text that is not valid UTF-8")
	}
	after, err := encode(img)
	if err != nil {
		return Config{}, err
	}
	if bytes.Equal(before, after) {
		c.raw = c.clean
		return c, nil
	}
	if c.raw, err = patch(c.base, before, after); err != nil {
		return Config{}, err
	}
	if err := strict.Size("", int64(len(c.raw)), strict.MaxDocument); err != nil {
		return Config{}, err
	}
	// What was written must read as what was asked for, and pass every check a source passes.
	var back docker.Image
	if err := strict.Unmarshal(c.raw, &back); err != nil {
		return Config{}, err
	}
	if again, err := encode(back); err != nil || !bytes.Equal(again, after) {
		return Config{}, kimg.Errorf(kimg.ErrInternal, "", "the edit reads back differently")
	}
	return c, nil
}

// encode writes what patch compares. An absent Config and an empty one are the same.
func encode(img docker.Image) (json.RawMessage, error) {
	if img.Config == nil {
		img.Config = &docker.Config{}
	}
	if img.RootFS.DiffIDs == nil {
		img.RootFS.DiffIDs = []digest.Digest{}
	}
	raw, err := strict.Marshal(img)
	if err != nil {
		return nil, invalid("timestamp: %w", err) // of all members only times can fail to encode
	}
	return raw, nil
}

// forgetZeroTimes drops the zero times that an edit brought in: Go's zero time would be written as year 1. A source
// that says year 1 itself keeps it.
func forgetZeroTimes(img *docker.Image, was docker.Image) {
	if img.Created != nil && img.Created.IsZero() && (was.Created == nil || !was.Created.IsZero()) {
		img.Created = nil
	}
	for i := range img.History {
		h := &img.History[i]
		if h.Created == nil || !h.Created.IsZero() {
			continue
		}
		if i >= len(was.History) || !reflect.DeepEqual(*h, was.History[i]) {
			h.Created = nil
		}
	}
}

// AddLayer returns the configuration with one more layer on top, and h as the history entry that made it. When the
// image has layers but no history, which OCI allows, each of them first gets an entry that says nothing, so that the
// numbers fit.
func (c Config) AddLayer(diffID digest.Digest, h docker.History) (Config, error) {
	h.EmptyLayer = false
	return c.Edit(func(img *docker.Image) error {
		padHistory(img)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, diffID)
		img.History = append(img.History, h)
		return nil
	})
}

// AddEmpty returns the configuration with one more history entry, for a step that made no layer. History that is
// missing altogether is filled in as [Config.AddLayer] does.
func (c Config) AddEmpty(h docker.History) (Config, error) {
	h.EmptyLayer = true
	return c.Edit(func(img *docker.Image) error {
		padHistory(img)
		img.History = append(img.History, h)
		return nil
	})
}

func padHistory(img *docker.Image) {
	if len(img.History) == 0 {
		img.History = make([]docker.History, len(img.RootFS.DiffIDs))
	}
}

// WithDocker returns the configuration whose current state is the given Docker document, which was written by
// [Config.JSON] of [DockerV2S2] earlier. Where the document agrees with an edit of this configuration, the result is
// that edit, so that a document without any edit gives the source's own bytes. A document that differs in members
// nobody here knows is taken as it is: it wins.
func (c Config) WithDocker(document []byte) (Config, error) {
	other, err := parseConfig(c.format, document)
	if err != nil {
		return Config{}, kimg.Wrap("config", err)
	}
	if c.base != nil {
		if edited, err := c.with(decode(other.base)); err == nil && sameJSON(edited.raw, other.raw) {
			return edited, nil
		}
	}
	c.base, c.raw, c.clean, c.odd = other.base, other.base, other.base, nil
	return c, nil
}

// sameJSON reports whether two valid documents say the same, whatever their spacing, escapes and order of members.
// Numbers are compared as text.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes()) {
		return true // as written by kimg itself
	}
	one, ok1 := canonical(a)
	two, ok2 := canonical(b)
	return ok1 && ok2 && one == two
}

// canonical returns a digest of what a document says.
func canonical(data []byte) (sum [sha256.Size]byte, ok bool) {
	var v any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return sum, false
	}
	raw, err := strict.Marshal(v)
	return sha256.Sum256(raw), err == nil
}
