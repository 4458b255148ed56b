package edit_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/copydata/edit"
)

// pairs of a value that sets something the image does not have, and one that takes it back.
var back = map[string][2]string{
	"env": {"N=1", "N-"}, "label": {"n=1", "n-"}, "annotation": {"n=1", "n-"}, "port": {"81", "81-"}, "volume": {"/n", "/n-"}, "os-feature": {"n", "n-"},
	"onbuild": {"RUN n", "-"}, "user": {"n", ""}, "shell": {"n", ""}, "stop-signal": {"9", ""}, "stop-timeout": {"1", ""}, "entrypoint": {"n", ""}, "cmd": {"n", ""},
	"healthcheck": {"n", ""}, "healthcheck-interval": {"1s", ""}, "healthcheck-timeout": {"1s", "0"}, "healthcheck-start-period": {"1s", ""},
	"healthcheck-start-interval": {"1s", ""}, "healthcheck-retries": {"1", "0"}, "hostname": {"n", ""}, "domainname": {"n", ""}, "author": {"n", ""},
	"comment": {"n", ""}, "variant": {"v2", ""}, "os-version": {"n", ""}, "created-by": {"n", ""}, "history-comment": {"n", ""}, "workingdir": {"/n", ""},
	"os": {"windows", "linux"}, "arch": {"arm64", "amd64"}, "unsetenv": {"N", "N"}, "unsetlabel": {"n", "n"}, "unsetannotation": {"n", "n"},
}

// Any set of settings, set in any order and then taken back, leaves the image's own bytes.
func TestSetThenUnsetRestores(t *testing.T) {
	for _, s := range edit.Settings() {
		if _, ok := back[s.Name]; !ok {
			t.Errorf("%s is not in the table", s.Name)
		}
	}
	source := []byte(`{ "architecture" : "amd64", "os": "linux", "x": [1.0], "config": {"Env":["A=b"], "Labels":{"a":"b"}, "Y": {} }, "rootfs":{"type":"layers","diff_ids":[]}}`)
	names := make([]string, 0, len(back))
	for _, s := range edit.Settings() {
		names = append(names, s.Name)
	}
	rapid.Check(t, func(t *rapid.T) {
		state, err := copydata.New(copydata.Origin{ImageID: strings.Repeat("a", 64), Format: convert.OCI, Config: source}, strings.Repeat("b", 64), "c")
		if err != nil {
			t.Fatal(err)
		}
		some := rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, "set")
		for turn, order := range [][]string{some, rapid.Permutation(some).Draw(t, "unset")} {
			for _, name := range order {
				e, err := edit.Set(name, back[name][turn])
				if err != nil {
					t.Fatal(err)
				}
				if err := state.Update(edit.List{e}.Apply); err != nil && !strings.Contains(err.Error(), "variant") { // v2 is no variant of arm64
					t.Fatalf("%s %q: %v", name, back[name][turn], err)
				}
			}
			if docker, _, err := state.Config().JSON(convert.DockerV2S2); err != nil || turn == 0 && len(docker) == 0 {
				t.Fatal(err)
			}
		}
		got, _, err := state.Config().JSON(convert.OCI)
		if err != nil || !bytes.Equal(got, source) || len(state.Annotations()) != 0 || state.CreatedBy() != "" {
			t.Fatalf("%v %v\n%s", some, err, got)
		}
	})
}
