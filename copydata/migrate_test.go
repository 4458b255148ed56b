package copydata_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
)

// TestPreviousSchemaMigrates reads a file as kimg wrote it when the schema was 1.
func TestPreviousSchemaMigrates(t *testing.T) {
	old, err := os.ReadFile("testdata/schema1.json")
	if err != nil {
		t.Fatal(err)
	}
	old = []byte(strings.Replace(string(old), `{"type"`, `{"by hand":[1],"type"`, 1))
	dir := &copydata.Memory{}
	dir.Put(ctr, copydata.FileName, old)
	c := load(t, dir)
	says := func() string {
		src := c.Source()
		return fmt.Sprint(c.Name(), c.ImageName(), c.ImageID(), c.CreatedBy(), c.MountPoint(), c.Annotations(), src.Format, string(src.Manifest), string(src.Config), string(document(t, c, convert.DockerV2S2)))
	}
	before := says()
	if c.CreatedBy() != "by hand" || c.Annotations()["new"] != "1" || c.MountPoint() != "/run/x" || string(c.Source().Config) != config || len(c.Config().Docker().Config.Env) != 1 {
		t.Error(before)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Schema int
		ByHand json.RawMessage `json:"by hand"`
	}
	if err := json.Unmarshal(content(t, dir), &file); err != nil || file.Schema != 2 || string(file.ByHand) != "[1]" {
		t.Errorf("%+v %v", file, err)
	}
	c = load(t, dir)
	if got := says(); got != before {
		t.Errorf("the state changed:\n%s\n%s", before, got)
	}
	want := []copydata.Step{{Generation: 1, Schema: 1, What: "created"}, {Generation: 3, Schema: 2, What: "upgraded"}}
	if d := cmp.Diff(want, c.History()); d != "" {
		t.Error(d)
	}
}

func TestHistory(t *testing.T) {
	c, dir := saved(t, origin(t, convert.OCI))
	for _, fn := range []func(*copydata.Settings){
		func(s *copydata.Settings) { s.Image.Config.Env = []string{"A=1"}; s.Annotations["a"] = "b" },
		func(*copydata.Settings) {},
		func(s *copydata.Settings) { s.MountPoint = "/mnt" }, // a hint, not an edit
		func(s *copydata.Settings) {
			s.Image.Author, s.Name, s.CreatedBy, s.HistoryComment, s.LayerAnnotations["l"] = "me", "n", "b", "c", "1"
		},
	} {
		if err := errors.Join(c.Update(func(s *copydata.Settings) error { fn(s); return nil }), c.Save(dir)); err != nil {
			t.Fatal(err)
		}
	}
	want := []copydata.Step{
		{Generation: 1, Schema: 2, What: "created"},
		{Generation: 2, Schema: 2, What: "edited", Members: []string{"annotations", "config.Env"}},
		{Generation: 5, Schema: 2, What: "edited", Members: []string{"author", "container-name", "created-by", "history-comment", "layer-annotations"}},
	}
	c = load(t, dir)
	if d := cmp.Diff(want, c.History()); d != "" {
		t.Error(d)
	}
	if c.HistoryComment() != "c" || c.LayerAnnotations()["l"] != "1" {
		t.Error("lost")
	}
	for i := range copydata.MaxHistory + 10 {
		if err := errors.Join(c.Update(func(s *copydata.Settings) error { s.CreatedBy = fmt.Sprint(i); return nil }), c.Save(dir)); err != nil {
			t.Fatal(err)
		}
	}
	h := load(t, dir).History()
	if len(h) != copydata.MaxHistory || h[0].What != "created" || h[len(h)-1].Generation != c.Generation() {
		t.Errorf("%d steps, %+v, %+v", len(h), h[0], h[len(h)-1])
	}
}

func TestRenew(t *testing.T) {
	_, dir := saved(t, origin(t, convert.OCI))
	o := origin(t, convert.OCI)
	good := content(t, dir)
	good = []byte(strings.Replace(string(good), `{"type"`, `{"by hand":1,"type"`, 1))
	dir.Put(ctr, copydata.FileName, good)
	c, err := copydata.Renew(good, o, ctr, "box")
	if err := errors.Join(err, c.Save(dir)); err != nil {
		t.Fatal(err)
	}
	if c = load(t, dir); c.Generation() != 2 || c.History()[1].What != "rebuilt" || !strings.Contains(string(content(t, dir)), `"by hand":1`) {
		t.Errorf("%d %+v", c.Generation(), c.History())
	}
	if c, err = copydata.Renew([]byte("rubbish"), o, ctr, "box"); err != nil || c.Generation() != 0 {
		t.Error(err)
	}
	if err := c.Save(&copydata.Memory{}); err != nil || c.History()[0].What != "rebuilt" {
		t.Error(err)
	}
}

func TestStateOfAnImage(t *testing.T) {
	c, err := copydata.FromImage(origin(t, convert.OCI))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(func(s *copydata.Settings) error { s.Image.Author = "me"; return nil }); err != nil || c.Config().OCI().Author != "me" {
		t.Error(err)
	}
	if err := c.Save(&copydata.Memory{}); err == nil || !strings.Contains(err.Error(), "belongs to no container") {
		t.Error(err)
	}
}

func TestIndexAnnotations(t *testing.T) {
	o := origin(t, convert.OCI)
	o.IndexAnnotations = map[string]string{"who": "index", "more": "index"}
	c, err := copydata.New(o, ctr, "")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"who": "me", "more": "index"}, c.Annotations()); d != "" || o.IndexAnnotations["who"] != "index" {
		t.Error(d)
	}
}
