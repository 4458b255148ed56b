package edit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/copydata/edit"
)

// Whatever is written, an instruction is refused with class invalid, or makes settings that can be written and are the same
// when it is carried out on the same settings again.
func FuzzInstructions(f *testing.F) {
	for _, text := range []string{
		`ENV A="b $C" D='e' F=\g`, `ENV A ${B:-"x y"}`, `LABEL a=b`, `CMD ["a"]`, `CMD a`, `ENTRYPOINT a \`, `EXPOSE 80/udp $X`, `VOLUME ["/a"]`,
		`HEALTHCHECK --interval=5s CMD ["x"]`, `ONBUILD RUN x`, "USER a\n# b\nWORKDIR c", `SHELL ["a"]`, `STOPSIGNAL "9"`, `ENV A=${B+$`, `ENV ""=x`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		edits, err := edit.Instructions(text)
		if err != nil {
			if !errors.Is(err, kimg.ErrInvalid) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		_ = edits.Check()
		var results [2][]byte
		for i := range results {
			s := start()
			if err := edits.Apply(&s); err != nil {
				if !errors.Is(err, kimg.ErrInvalid) {
					t.Fatalf("%q: %v", text, err)
				}
				return
			}
			if results[i], err = json.Marshal(s); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if err := s.Check(start()); err != nil && !errors.Is(err, kimg.ErrInvalid) {
				t.Fatalf("%q: %v", text, err)
			}
		}
		if !bytes.Equal(results[0], results[1]) {
			t.Fatalf("%q: %s, then %s", text, results[0], results[1])
		}
	})
}

// A file is refused, or merged into settings that can be written.
func FuzzFile(f *testing.F) {
	for _, text := range []string{`{"Env":["A=b"],"Labels":{"a":null},"Cmd":"x","Healthcheck":null}`, `{"StopTimeout":1e3}`, `{"ExposedPorts":{"80":{}}}`, `{"Env":[null]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := edit.File(data)
		if err != nil {
			if c := kimg.ClassOf(err); c != kimg.ErrInvalid && c != kimg.ErrLimit {
				t.Fatal(err)
			}
			return
		}
		s := start()
		if err := (edit.List{e}).Apply(&s); err == nil {
			if _, err := json.Marshal(s); err != nil {
				t.Fatal(err)
			}
			_ = s.Check(copydata.Settings{})
		}
	})
}
