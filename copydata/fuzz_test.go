package copydata_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/testimage"
)

// FuzzState: whatever a state file holds, reading it never panics; a refusal is class state in one line; and what is
// accepted can be saved, loads as the same, and keeps the members nobody knows.
func FuzzState(f *testing.F) {
	v1, _ := schema1(testimage.V1Options{Seed: 1, Layers: 2, Empty: 1})
	if old, err := os.ReadFile("testdata/schema1.json"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(old)
	}
	for _, o := range []copydata.Origin{{OS: "linux", Arch: "amd64"}, origin(f, convert.OCI), origin(f, convert.DockerV2S2), v1} {
		c, dir := saved(f, o)
		f.Add(content(f, dir))
		err := c.Update(func(s *copydata.Settings) error {
			s.Image.Config.Labels = map[string]string{"a": "<\u2028>", "A": "x"}
			s.Annotations["k"], s.MountPoint, s.CreatedBy = "v", "/run/m", "x"
			return nil
		})
		if err != nil || c.Save(dir) != nil {
			f.Fatal(err)
		}
		f.Add(content(f, dir))
		f.Add(bytes.Replace(content(f, dir), []byte(`23,"created"`), []byte(`23,"Created"`), 1)) // a misspelt member in docker
		f.Add(bytes.Replace(content(f, dir), []byte(`{"type"`), []byte(`{"zz":{"a":1e99},"type"`), 1))
	}
	for _, seed := range []string{"", "null", "{}", `{"type":"kimg container state","schema":1,"generation":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := &copydata.Memory{}
		dir.Put(ctr, copydata.FileName, append([]byte{}, data...))
		c, err := copydata.Load(dir, ctr)
		generation, err2 := copydata.Generation(data)
		if err != nil {
			if kimg.ClassOf(err) != kimg.ErrState || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") || len(err.Error()) > 500 {
				t.Fatalf("class %s: %q", kimg.ClassOf(err), err)
			}
			return
		}
		if err2 != nil || generation != c.Generation() {
			t.Fatalf("generation %d, %v", generation, err2)
		}
		if generation+1 == 0 {
			return // nobody saves that often
		}
		before, _, err := c.Config().JSON(convert.DockerV2S2)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Save(dir); err != nil {
			t.Fatal(err)
		}
		again, err := copydata.Load(dir, ctr)
		if err != nil {
			t.Fatal(err)
		}
		after, _, err := again.Config().JSON(convert.DockerV2S2)
		if err != nil || !sameMeaning(t, before, after) || again.Generation() != generation+1 || again.Config().Edited() != c.Config().Edited() {
			t.Fatalf("%v\n%s\n%s", err, before, after)
		}
	})
}

// sameMeaning compares two documents without their spacing and escapes, which an edited configuration does not keep in
// the file.
func sameMeaning(t *testing.T, a, b []byte) bool {
	var values [2]any
	for i, data := range [][]byte{a, b} {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&values[i]); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// FuzzForeign: whatever lies where buildah, podman and CRI-O keep their files, reading it never panics, a refusal is class
// state in one line, and what is accepted can be saved and loaded.
func FuzzForeign(f *testing.F) {
	f.Add([]byte(buildahFile))
	f.Add([]byte(runtimeFile))
	f.Add([]byte("{}"))
	f.Add([]byte(`{"process":{"args":["/init","--","x"],"env":["=","A","A=1","A=2"],"cwd":"x","user":{"uid":4294967295}}}`))
	o := origin(f, convert.OCI)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func() (*copydata.CopyData, convert.Report, error){
			func() (*copydata.CopyData, convert.Report, error) { return copydata.FromBuildah(data, o, ctr, "n") },
			func() (*copydata.CopyData, convert.Report, error) {
				return copydata.FromRuntime(copydata.Podman, data, o, ctr, "n")
			},
		} {
			c, _, err := read()
			if err != nil {
				if kimg.ClassOf(err) != kimg.ErrState || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") || len(err.Error()) > 500 {
					t.Fatalf("class %s: %q", kimg.ClassOf(err), err)
				}
				continue
			}
			dir := &copydata.Memory{}
			if err := c.Save(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := copydata.Load(dir, ctr); err != nil {
				t.Fatal(err)
			}
		}
	})
}
